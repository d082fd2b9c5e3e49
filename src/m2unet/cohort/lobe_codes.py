"""Other tools' lobe codes: turned into this package's, and recognised by their values and by where they lie."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.anatomy import AIRWAY, CODE_MAPS, LEFT_CODES, LOBE_CODES, RIGHT_CODES, CodeSystem
from m2unet.errors import ScanError

_WHOLE_BODY: tuple[CodeSystem, ...] = ("totalsegmentator-v1", "totalsegmentator-v2")

_Z, _Y, _X = 0, 1, 2
_LIE_HIGHER: tuple[tuple[int, int, int], ...] = (
    *((_X, left, right) for left, right in product(LEFT_CODES, RIGHT_CODES)),
    (_Z, 1, 2),
    (_Z, 1, 3),
    (_Z, 4, 5),
    (_Y, 3, 2),
)
"""Axis, and two lobes of which the first lies higher on it: z to the head, y to the back, x to the left."""


def recognised(array: NDArray[np.int16], *, name: str) -> CodeSystem:
    """Whose codes a lobe mask holds.

    A tool comes into question if every value is one of its codes and the lobes that they would be lie to each other as
    lobes do: left ones to the left, upper ones above lower ones, the middle lobe before the lower one. This package's
    own codes go before others', then the tool that explains most lobes. Where the places fit nobody (a mirrored
    patient), values that are this package's codes are taken as such.

    Args:
        array: ``[z, y, x]``, z towards the head, y towards the back, x towards the patient's left.
        name: of the file, for the message.

    Raises:
        ScanError: no tool's codes fit.
    """
    values = _values(array)
    centres = _centres(array, values)
    fitting: dict[CodeSystem, int] = {}
    for tool in CODE_MAPS:
        meaning = {value: _meaning(value, tool) for value in values}
        if any(code is None for code in meaning.values()):
            continue
        lobes = {code: centres[value] for value, code in meaning.items() if code in LOBE_CODES}
        if all(lobes[a][axis] > lobes[b][axis] for axis, a, b in _LIE_HIGHER if a in lobes and b in lobes):
            fitting[tool] = len(lobes)
    if "m2unet" in fitting or (not any(fitting.values()) and all(_meaning(v, "m2unet") is not None for v in values)):
        return "m2unet"
    if not any(fitting.values()):
        raise ScanError(
            f"The lobe mask {name} holds values that are no known lobe codes, or whose places are not those of lobes",
            found=_listed([value for value in values if value]),
            expected=f"the codes of one of {', '.join(CODE_MAPS)}",
            mend="say whose codes they are with --lobe-codes, or recode the mask",
        )
    return max(fitting, key=lambda tool: fitting[tool])


def _centres(array: NDArray[np.int16], values: list[int]) -> dict[int, tuple[float, ...]]:
    labels = [value for value in values if value > 0]
    found = ndimage.center_of_mass(np.ones(array.shape, np.uint8), array, labels) if labels else []
    return dict(zip(labels, found, strict=True))


def recode(array: NDArray[np.int16], codes: CodeSystem, *, name: str) -> NDArray[np.uint8]:
    """Turn another tool's codes into ours.

    Args:
        array: any shape.
        codes: the tool, a key of :data:`m2unet.anatomy.CODE_MAPS`.
        name: of the file, for the message.

    Returns:
        Codes 0-6, same shape.

    Raises:
        ScanError: naming the values that are no codes of that tool, and the tool whose codes they would be.
    """
    if codes not in CODE_MAPS:
        raise ScanError("There is no such system of lobe codes", found=codes, expected=f"one of {', '.join(CODE_MAPS)}")
    values = _values(array)
    table = {value: _meaning(value, codes) for value in values}
    unknown = [value for value, code in table.items() if code is None]
    if unknown:
        tool = _likeliest(values)
        raise ScanError(
            f"The lobe mask {name} holds values that are no lobe codes",
            found=_listed(unknown),
            expected=f"0 and {_listed(sorted(CODE_MAPS[codes]))} ({codes})",
            mend=f"say whose codes they are, e.g. lobe_codes={tool!r}" if tool else "recode the mask",
        )
    lookup = np.zeros(max(values, default=0) + 1, dtype=np.uint8)
    for value, code in table.items():
        lookup[value] = code or 0
    return lookup[array]


def _meaning(value: int, codes: CodeSystem) -> int | None:
    """Our code for another tool's value, None if that tool has no such value."""
    if value < 0:
        return None
    if value == 0:
        return 0
    if codes == "luna16":  # high byte 2 is airway, in a lobe or not; a few voxels hold a stray low byte of 1
        if value >> 8 == 2:
            return AIRWAY
        return 0 if value == 1 else CODE_MAPS[codes].get(value)
    return CODE_MAPS[codes].get(value, 0 if codes in _WHOLE_BODY and value <= 255 else None)


def _likeliest(values: list[int]) -> CodeSystem | None:
    """The tool to which the most of these values are lobes and none is unknown."""
    lobes = {
        tool: sum(bool(_meaning(value, tool)) for value in values)
        for tool in CODE_MAPS
        if all(_meaning(value, tool) is not None for value in values)
    }
    ranked = sorted((count, tool) for tool, count in lobes.items() if count)
    return ranked[-1][1] if ranked else None


def _values(array: NDArray[np.int16]) -> list[int]:
    low = int(array.min())
    counts = np.bincount(array.ravel().astype(np.int64) - low)
    return [int(value) + low for value in np.flatnonzero(counts)]


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values[:12])) + (f" and {len(values) - 12} more" if len(values) > 12 else "")
