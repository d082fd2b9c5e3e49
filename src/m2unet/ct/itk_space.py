"""What MetaImage and NRRD headers say of units and axes, beyond what ITK reads of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.findings import Finding, QualityError, finding

_UNITS_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 0.001),
}
_ANATOMICAL = re.compile(r"(right|left)-(anterior|posterior)-superior(-time)?|(ras|las|lps)t?")
_AXIS_STATED = 0.8
"""Cosine from which an axis surely runs along one of the patient's."""


def unit_mm(kind: str, fields: Mapping[str, str]) -> tuple[float, str]:
    """Millimetres of a header's unit of length, and the field that states it.

    Args:
        kind: ``mha`` or ``nrrd``.
        fields: the header's, keys in lower case.

    Raises:
        QualityError: axes in different units.
    """
    names = ("distanceunits",) if kind == "mha" else ("space units", "units")
    field = next((name for name in names if fields.get(name)), None)
    if field is None:
        return 1.0, "no unit stated, mm assumed"
    text = fields[field].encode("latin-1", "replace").decode("utf-8", "replace")
    words = re.findall(r'"([^"]*)"', text)[:3] if kind == "nrrd" else [text]
    said = f"{field}: {text.strip()[:40]}"
    scales = {_UNITS_MM.get(word.strip().lower(), 1.0) for word in words}
    if len(scales) > 1:
        raise QualityError([finding("bad-spacing", f"axes in different units ({said})")])
    return next(iter(scales), 1.0), said


def check_steps_stated(kind: str, fields: Mapping[str, str]) -> None:
    """Refuse a header without voxel steps, for which ITK takes 1 mm.

    Raises:
        QualityError: there are none.
    """
    names = ("elementspacing", "elementsize") if kind == "mha" else ("space directions", "spacings")
    if not any(name in fields for name in names):
        raise QualityError([finding("bad-spacing", f"a header with neither {' nor '.join(names)}")])


def check_space(kind: str, fields: Mapping[str, str], direction: NDArray[np.float64]) -> list[Finding]:
    """Whether the header says how the scan lies, and only once or twice the same.

    Args:
        kind: ``mha`` or ``nrrd``.
        fields: the header's, keys in lower case.
        direction: 3 x 3 as ITK reads it, columns are the LPS unit vectors of axes i, j, k.
    """
    if kind == "nrrd":
        space = fields.get("space", "").strip().lower()
        if _ANATOMICAL.fullmatch(space):
            return []
        said = (
            f"a NRRD header whose space is {space[:40]!r}, which is none of a body"
            if space
            else "a NRRD header without a space"
        )
        return [finding("orientation-unknown", said)]
    matrix = any(name in fields for name in ("transformmatrix", "rotation", "orientation"))
    letters = fields.get("anatomicalorientation", "").strip().upper()
    stated = re.fullmatch(r"(?=.*[RL])(?=.*[AP])(?=.*[IS])[RLAPIS]{3}", letters) is not None
    if not matrix and not stated:
        return [finding("orientation-unknown", "a MetaImage header without TransformMatrix")]
    used = _letters(direction)
    if not stated or used is None or letters == used:
        return []
    other = f"TransformMatrix {used}" if matrix else f"there is no TransformMatrix, so that {used} is taken"
    said = f"AnatomicalOrientation is {letters}, but {other} (in letters for where the axes come from)"
    return [finding("contradictory-geometry", said)]


def _letters(direction: NDArray[np.float64]) -> str | None:
    """MetaImage's name of axes i, j, k: where each comes from, LPS axes being RAI; None for oblique ones."""
    names = ""
    for column in direction.T:
        axis = int(np.abs(column).argmax())
        if abs(column[axis]) < _AXIS_STATED:
            return None
        names += ("RAI" if column[axis] > 0 else "LPS")[axis]
    return names
