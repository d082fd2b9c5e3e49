"""Whether a lobe mask can be what it says, by its geometry alone: every fault is listed.

One check for masks that people drew or corrected, for masks of other tools, and for predictions; what the scan's HU say
of a mask is checked by :mod:`m2unet.inference.plausibility`, which begins with this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.anatomy import AIRWAY, LOBES, Lobe

FaultCode = Literal["missing", "sides", "order", "volume", "islands", "air", "outside", "mismatch"]
FORGIVABLE: tuple[FaultCode, ...] = ("missing", "sides", "order", "volume", "islands", "air", "outside", "mismatch")
"""Faults that may be the patient's own anatomy, and can be accepted by name; a mask that is not on its scan's grid or
holds values that are no lobes cannot."""

LOBE_ML = (20.0, 3500.0)
"""Volumes of a lobe beyond which something is most likely wrong; adults' middle lobes are the smallest."""

MIDDLE_LOBE_ML = 1500.0
"""The same for the middle lobe, which holds 9.3 % of both lungs, 6.6-13.8 % in 32 adults (Yamada et al. 2020,
*Respiration* 99:598-605, Table 3), and 919 ml at most in 51 lobe maps of LUNA16."""

LUNGS_ML = (500.0, 10000.0)
"""Volumes of both lungs beyond which something is most likely wrong in an adult: total lung capacity in emphysema is
6.5 +- 1.3 l (Garfield et al. 2012, *Int J COPD* 7:119-126); 1.3-8.2 l in LUNA16."""

LUNG_SHARE = (0.2, 0.8)
"""Share of both lungs that the right one has: 51-57 % in Yamada et al., 44-61 % in LUNA16."""

PARTIAL_MM = 30.0
"""In a scan of a part of the lungs, centres out of order by less than this are no fault: lobes are cut, not turned."""

ISLAND_SHARE = 0.02
"""Share of a lobe that may lie apart from its largest piece (pieces that touch by a corner count as one)."""

_ABOVE = (("RUL", "RLL"), ("LUL", "LLL"))
_BEFORE = ("RML", "RLL")


@dataclass(frozen=True)
class MaskFault:
    """One thing wrong with a mask.

    Attributes:
        code: ``missing`` (a lobe is not there), ``sides`` (left and right), ``order`` (an upper lobe below the lower
            one, the middle lobe behind it), ``volume``, ``islands``; and by the scan's HU ``air`` (a lobe or a lung
            holds next to none), ``outside`` (it lies where no lung is), ``mismatch`` (it leaves out much of the lung).
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
    mask: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    voxel_ml: float,
    accept: Collection[str] = (),
    *,
    partial: bool = False,
    island_share: float = ISLAND_SHARE,
    island_ml: float = 0.0,
) -> CheckedMask:
    """Check a mask that lies on its scan and holds lobe codes only.

    Args:
        mask: ``[z, y, x]`` lobe codes 0-6; z towards the head, y towards the back, x towards the patient's left.
        spacing_mm: ``(z, y, x)``.
        voxel_ml: volume of a voxel.
        accept: codes of faults to live with, of :data:`FORGIVABLE`.
        partial: whether the scan shows a part of the lungs only: lobes may be missing, small, or cut.
        island_share: share of a lobe that may lie apart from its largest piece.
        island_ml: volume that may in any case.

    Returns:
        All faults, not the first alone.
    """
    counts = np.bincount(mask.reshape(-1), minlength=7)
    volumes = {lobe.abbreviation: float(counts[lobe.code] * voxel_ml) for lobe in LOBES}
    present = [lobe for lobe in LOBES if counts[lobe.code]]
    faults = (
        [] if partial else [("missing", f"{lobe.abbreviation} is not there") for lobe in LOBES if lobe not in present]
    )
    faults += _volumes(present, volumes, partial)
    boxes = dict(enumerate(ndimage.find_objects(mask, max_label=AIRWAY), 1))
    insides = {lobe: (boxes[lobe.code], mask[boxes[lobe.code]] == lobe.code) for lobe in present}
    centres = {lobe.abbreviation: _centre(inside, box, spacing_mm) for lobe, (box, inside) in insides.items()}
    faults += _sides(present, centres)
    faults += _order(centres, PARTIAL_MM if partial else 0.0)
    for lobe, (box, inside) in insides.items():
        text = _islands(inside, lobe, voxel_ml, box[0].start, max(island_share * volumes[lobe.abbreviation], island_ml))
        faults += [("islands", text)] if text else []
    accepted = {code for code in FORGIVABLE if code in accept}
    found = tuple(MaskFault(code, text, code in accepted) for code, text in faults)  # type: ignore[arg-type]
    return CheckedMask(found, volumes)


def _volumes(present: list[Lobe], volumes: Mapping[str, float], partial: bool) -> list[tuple[str, str]]:
    faults = []
    least = 0.0 if partial else LOBE_ML[0]
    for name in (lobe.abbreviation for lobe in present):
        most = MIDDLE_LOBE_ML if name == "RML" else LOBE_ML[1]
        if not least <= volumes[name] <= most:
            faults.append(("volume", f"{name} has {volumes[name]:.0f} ml, {LOBE_ML[0]:.0f}-{most:.0f} is usual"))
    lungs = sum(volumes.values())
    if lungs and not (0.0 if partial else LUNGS_ML[0]) <= lungs <= LUNGS_ML[1]:
        usual = f"{LUNGS_ML[0] / 1000:.1f}-{LUNGS_ML[1] / 1000:.0f} l"
        faults.append(("volume", f"both lungs have {lungs / 1000:.2f} l, {usual} is usual"))
    right = sum(volumes[lobe.abbreviation] for lobe in present if lobe.side == "right")
    if not partial and lungs and not LUNG_SHARE[0] <= right / lungs <= LUNG_SHARE[1]:
        side, ml = ("right", right) if right < lungs - right else ("left", lungs - right)
        faults.append(
            ("volume", f"the {side} lung has {ml:.0f} ml, {100 * ml / lungs:.0f} % of both; 44-61 % is usual")
        )
    return faults


def _centre(
    inside: NDArray[np.bool_], box: tuple[slice, ...], spacing_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    means = [
        float(inside.sum(axis=tuple(a for a in range(3) if a != axis)) @ np.arange(inside.shape[axis])) / inside.sum()
        for axis in range(3)
    ]
    z, y, x = ((mean + part.start) * step for mean, part, step in zip(means, box, spacing_mm, strict=True))
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


def _order(centres: Mapping[str, tuple[float, float, float]], room_mm: float) -> list[tuple[str, str]]:
    faults = []
    for upper, lower in _ABOVE:
        if upper in centres and lower in centres and centres[upper][0] <= centres[lower][0] - room_mm:
            faults.append(("order", f"the centre of {upper} does not lie above that of {lower}"))
    front, back = _BEFORE
    if front in centres and back in centres and centres[front][1] >= centres[back][1] + room_mm:
        faults.append(("order", f"the centre of {front} does not lie in front of that of {back}"))
    return faults


def _islands(inside: NDArray[np.bool_], lobe: Lobe, voxel_ml: float, first: int, room_ml: float) -> str | None:
    import SimpleITK as sitk

    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(inside.astype(np.uint8)), True))
    sizes = np.bincount(labels.reshape(-1))[1:]
    apart = int(sizes.sum() - sizes.max())
    if apart * voxel_ml <= room_ml:
        return None
    largest = int(np.sort(sizes)[-2])
    at = np.argwhere(labels == 1 + int(np.argsort(sizes)[-2]))[0]
    return (
        f"{apart * voxel_ml:.1f} ml of {lobe.abbreviation} lie apart from it in {len(sizes) - 1} piece(s), the largest "
        f"of {largest * voxel_ml:.1f} ml in slice {int(at[0]) + first + 1} from the feet"
    )
