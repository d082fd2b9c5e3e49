"""Checks of a lobe mask that a person drew or corrected, before a network learns from it: every fault is listed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES, Lobe

FaultCode = Literal["missing", "sides", "order", "volume", "islands"]
FORGIVABLE: tuple[FaultCode, ...] = ("missing", "sides", "order", "volume", "islands")
"""Faults that may be the patient's own anatomy, and can be accepted by name; a mask that is not on its scan's grid or
holds values that are no lobes cannot."""

LOBE_ML = (20.0, 3500.0)
"""Volumes of a lobe beyond which something is most likely wrong; adults' middle lobes are the smallest."""

ISLAND_SHARE = 0.02
"""Share of a lobe that may lie apart from its largest piece (pieces that touch by a corner count as one)."""

_ABOVE = (("RUL", "RLL"), ("LUL", "LLL"))
_BEFORE = ("RML", "RLL")


@dataclass(frozen=True)
class MaskFault:
    """One thing wrong with a mask.

    Attributes:
        code: ``missing`` (a lobe is not there), ``sides`` (left and right), ``order`` (an upper lobe below the lower
            one, the middle lobe behind it), ``volume``, ``islands``.
        found: in words.
        accepted: whether the user lives with it.
    """

    code: FaultCode
    found: str
    accepted: bool = False


@dataclass(frozen=True)
class CheckedMask:
    """A mask and what is wrong with it.

    Attributes:
        faults: everything found; accepted ones too.
        volumes_ml: by lobe abbreviation; 0 where it is missing.
    """

    faults: tuple[MaskFault, ...]
    volumes_ml: Mapping[str, float] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether every fault is accepted."""
        return all(fault.accepted for fault in self.faults)


def check_corrected(
    mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float], voxel_ml: float, accept: Collection[str] = ()
) -> CheckedMask:
    """Check a mask that lies on its scan and holds lobe codes only.

    Args:
        mask: ``[z, y, x]`` lobe codes 0-6; z towards the head, y towards the back, x towards the patient's left.
        spacing_mm: ``(z, y, x)``.
        voxel_ml: volume of a voxel.
        accept: codes of faults to live with, of :data:`FORGIVABLE`.

    Returns:
        All faults, not the first alone.
    """
    counts = np.bincount(mask.reshape(-1), minlength=7)
    volumes = {lobe.abbreviation: float(counts[lobe.code] * voxel_ml) for lobe in LOBES}
    present = [lobe for lobe in LOBES if counts[lobe.code]]
    faults = [("missing", f"{lobe.abbreviation} is not there") for lobe in LOBES if not counts[lobe.code]]
    faults += [
        (
            "volume",
            f"{lobe.abbreviation} has {volumes[lobe.abbreviation]:.0f} ml, {LOBE_ML[0]:.0f}-{LOBE_ML[1]:.0f} is usual",
        )
        for lobe in present
        if not LOBE_ML[0] <= volumes[lobe.abbreviation] <= LOBE_ML[1]
    ]
    centres = {lobe.abbreviation: _centre(mask == lobe.code, spacing_mm) for lobe in present}
    faults += _sides(present, centres)
    faults += _order(centres)
    faults += [("islands", text) for lobe in present if (text := _islands(mask == lobe.code, lobe, voxel_ml))]
    accepted = {code for code in FORGIVABLE if code in accept}
    found = tuple(MaskFault(code, text, code in accepted) for code, text in faults)  # type: ignore[arg-type]
    return CheckedMask(found, volumes)


def _centre(inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    means = [
        float(inside.sum(axis=tuple(a for a in range(3) if a != axis)) @ np.arange(inside.shape[axis]))
        for axis in range(3)
    ]
    z, y, x = (mean / inside.sum() * step for mean, step in zip(means, spacing_mm, strict=True))
    return z, y, x


def _sides(present: list[Lobe], centres: Mapping[str, tuple[float, float, float]]) -> list[tuple[str, str]]:
    faults = []
    for right in (lobe for lobe in present if lobe.side == "right"):
        for left in (lobe for lobe in present if lobe.side == "left"):
            gap = centres[left.abbreviation][2] - centres[right.abbreviation][2]
            if gap <= 0:
                text = f"{right.abbreviation} lies {-gap:.0f} mm to the patient's left of {left.abbreviation}"
                faults.append(("sides", text))
    return faults


def _order(centres: Mapping[str, tuple[float, float, float]]) -> list[tuple[str, str]]:
    faults = []
    for upper, lower in _ABOVE:
        if upper in centres and lower in centres and centres[upper][0] <= centres[lower][0]:
            faults.append(("order", f"the centre of {upper} does not lie above that of {lower}"))
    front, back = _BEFORE
    if front in centres and back in centres and centres[front][1] >= centres[back][1]:
        faults.append(("order", f"the centre of {front} does not lie in front of that of {back}"))
    return faults


def _islands(inside: NDArray[np.bool_], lobe: Lobe, voxel_ml: float) -> str | None:
    import SimpleITK as sitk

    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.astype(np.uint8)), True))
    sizes = np.bincount(labels.reshape(-1))[1:]
    apart = int(sizes.sum() - sizes.max())
    if apart <= ISLAND_SHARE * sizes.sum():
        return None
    largest = int(np.sort(sizes)[-2])
    at = np.argwhere(labels == 1 + int(np.argsort(sizes)[-2]))[0]
    return (
        f"{apart * voxel_ml:.1f} ml of {lobe.abbreviation} lie apart from it in {len(sizes) - 1} piece(s), the largest "
        f"of {largest * voxel_ml:.1f} ml in slice {int(at[0]) + 1} from the feet"
    )
