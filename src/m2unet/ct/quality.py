"""What values and anatomy say about a scan: is it CT, is it HU, is it a chest, is all of it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.body import OUTLINE_HU, body_on
from m2unet.ct.chest import check_chest_shape, check_size
from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.findings import Finding, Level, finding
from m2unet.ct.lungs import Lungs, lungs_on
from m2unet.ct.orientation import check_orientation
from m2unet.ct.raw import RawScan
from m2unet.ct.volume import Volume

FEW_SLICES = 10
THICK_MM = 10.0
PLANE_MM = (0.1, 6.0)
"""Side of a voxel in the plane; chest CT has 0.3 to 1 mm, subsampled copies more."""

SMALL_MM = 40.0
"""A scan less high than this may miss the lungs without being another part of the body."""

OBLIQUE_DEGREES = 10.0

_SAMPLE = 2_000_000
_GAP, _HIGH_GAP = 150, 8000
"""A value so far below, or above, all others is padding; metal reaches far up, hence the second."""

AIR_HU = -1000
_PADDINGS = 4
_FEWEST = 1000
_STRAY = 0.02
_NO_BODY_HU = 400
"""More than nineteen of twenty voxels above this are no body on the HU scale."""

_DISTINCT = 50
"""Fewer distinct values are a synthetic image, in which many voxels at the extremes say nothing."""


@dataclass(frozen=True)
class Anatomy:
    """What a coarse look at the anatomy found.

    Attributes:
        findings: about it.
        lungs: None where none were found.
    """

    findings: tuple[Finding, ...]
    lungs: Lungs | None


def check_values(raw: RawScan) -> list[Finding]:
    """Whether stored values can be HU.

    Args:
        raw: as read, before anything is rounded or clipped.
    """
    array = raw.array
    if np.issubdtype(array.dtype, np.floating):
        wrong = array.size - sum(int(np.count_nonzero(np.isfinite(plane))) for plane in array)
        if wrong:
            share = 100 * wrong / array.size
            return [finding("not-finite", f"{wrong} of {array.size} voxels ({share:.2g} %)")]
    low, high = float(array.min()), float(array.max())
    sample = _sample(array)
    not_hu = _not_hu(sample, low, high, raw.stored_bits)
    if not_hu is not None:
        return [not_hu]
    inside = _without_padding(sample)
    if not _FEWEST <= inside.size < sample.size:
        moved = _moved(sample)
        return [moved] if moved is not None else _windowed(sample, low, high)
    not_hu = _not_hu_beside_padding(inside, float(inside.min()), float(inside.max()))
    if not_hu is not None:
        return [not_hu]
    if low <= AIR_HU:  # a value above it that holds many voxels may be the end of a window, not padding
        sample, low, high = inside, float(inside.min()), float(inside.max())
    return _windowed(sample, low, high)


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    stride = max(1, int(np.ceil((array.size / _SAMPLE) ** (1 / 3))))
    return array[::stride, ::stride, ::stride].ravel()


def _not_hu(sample: NDArray[Any], low: float, high: float, bits: int) -> Finding | None:
    said = f"values from {low:g} to {high:g}"
    if low == high:
        return finding("not-hu", f"every voxel is {low:g}")
    if high - low <= 2.5:
        return finding("not-hu", f"{said}, normalised")
    if (low >= 0 and high <= 255) or (bits == 8 and high - low <= 255):
        return finding("eight-bit", said)
    if low > -200:
        return _moved(sample) or finding("not-hu", f"{said}; air would be near -1000")
    return None


def _not_hu_beside_padding(rest: NDArray[Any], low: float, high: float) -> Finding | None:
    """The same for the values left when padding is taken away, which hides by its value that air is not at -1000."""
    said = f"values from {low:g} to {high:g} beside padding"
    if high - low <= 2.5:
        return finding("not-hu", f"{said}, normalised")
    if low >= 0 and high <= 255:
        return finding("eight-bit", said)
    if float(np.percentile(rest, 5)) > _NO_BODY_HU:
        return _moved(rest) or finding("not-hu", f"{said}; air would be near -1000")
    return _moved(rest)


def _moved(sample: NDArray[Any]) -> Finding | None:
    """Whether air and soft tissue lie 1024 too high or too low, and hardly anything where one of them should be."""

    def share(low: float, high: float) -> float:
        return float(np.mean((sample > low) & (sample < high)))

    if share(-150, 400) > 0.05 and share(824, 1224) > 0.05 and share(-1200, -200) < _STRAY:
        return finding("offset-hu", f"air and soft tissue about 1024 too high, {_middle(sample, 824, 1224)}")
    if share(-2300, -1500) > 0.05 and share(-1224, -824) > 0.05 and share(-600, 4000) < _STRAY:
        return finding("offset-hu", f"air and soft tissue about 1024 too low, {_middle(sample, -1224, -824)}")
    return None


def _middle(sample: NDArray[Any], low: float, high: float) -> str:
    return f"soft tissue near {float(np.median(sample[(sample > low) & (sample < high)])):.0f}"


def _without_padding(sample: NDArray[Any]) -> NDArray[Any]:
    """The values without single ones far from all others, at either end: what scanners and exports fill up with."""
    values = np.unique(sample).astype(np.float64)
    for _ in range(_PADDINGS):
        if len(values) < 3:
            break
        if values[1] - values[0] >= _GAP:
            values = values[1:]
        elif values[-1] - values[-2] >= _HIGH_GAP:
            values = values[:-1]
    return sample[(sample >= values[0]) & (sample <= values[-1])]


def _windowed(sample: NDArray[Any], low: float, high: float) -> list[Finding]:
    found: list[Finding] = []
    if len(np.unique(sample[::10])) <= _DISTINCT:
        return found
    at_low, at_high = float(np.mean(sample <= low)), float(np.mean(sample >= high))
    level: Level
    if low > -950 and at_low > 0.02:
        level = "error" if low > -700 else "warning"
        found.append(finding("windowed", f"{100 * at_low:.0f} % of the voxels are at the lowest value, {low:g}", level))
    if high < 1500 and at_high > 0.005:
        level = "error" if high < 100 else "warning"
        found.append(
            finding("windowed", f"{100 * at_high:.1f} % of the voxels are at the highest value, {high:g}", level)
        )
    return found


def check_geometry(volume: Volume) -> list[Finding]:
    """Whether slices, spacing and orientation suit an axial chest CT."""
    found: list[Finding] = []
    dz, dy, dx = volume.spacing_mm
    count = min(volume.shape)
    if count < FEW_SLICES:
        level: Level = "error" if count < 2 else "warning"
        found.append(finding("too-few-slices", f"{count} slice(s)", level))
    if not all(PLANE_MM[0] <= step <= PLANE_MM[1] for step in (dy, dx)) or dz < PLANE_MM[0]:
        found.append(finding("unusual-spacing", f"voxels of {dz:.3g} x {dy:.3g} x {dx:.3g} mm (z, y, x)"))
    dicom_other_plane = volume.source.format == "dicom" and volume.source.permutation[0] != 0
    if dicom_other_plane or max(dy, dx) > max(2 * dz, 2.0):
        found.append(finding("non-axial", f"voxels of {dz:.3g} x {dy:.3g} x {dx:.3g} mm (z, y, x)"))
    elif dz > THICK_MM:
        found.append(finding("thick-slices", f"{dz:.3g} mm"))
    angle = float(np.degrees(np.arccos(np.clip(np.diag(volume.direction).min(), -1.0, 1.0))))
    if angle > OBLIQUE_DEGREES:
        found.append(finding("oblique", f"an axis lies {angle:.0f} degrees off"))
    return found


def check_anatomy(volume: Volume) -> Anatomy:
    """Whether there is a body and whole lungs in it, by a coarse classical look."""
    grid = CoarseGrid.fitting(volume.shape, volume.spacing_mm)
    average = grid.average(volume.array)
    body = body_on(grid, average, OUTLINE_HU)
    if body is None:
        return Anatomy((finding("body-absent", "only air"),), None)
    found: list[Finding] = []
    tissue = average[body & (average > -300) & (average < 300)]
    middle = float(np.median(tissue)) if tissue.size else 0.0
    if not -130 <= middle <= 130:
        found.append(finding("implausible-hu", f"the median of soft tissue is {middle:.0f} HU"))
    lungs = lungs_on(grid, average, body)
    turned = check_orientation(grid, average) or check_size(lungs, grid, body)
    if turned is not None:
        found.append(turned)
    height = volume.shape[0] * volume.spacing_mm[0]
    if lungs is None:
        level: Level = "error" if height >= SMALL_MM else "warning"
        found.append(finding("lungs-absent", f"none in a scan {height:.0f} mm high", level))
        return Anatomy(tuple(found), None)
    found += check_chest_shape(lungs, body)
    cut = {"the top": lungs.cut_top, "the bottom": lungs.cut_bottom, "a side": lungs.cut_sides}
    where = [name for name, is_cut in cut.items() if is_cut]
    if where:
        found.append(finding("lungs-cut-off", f"at {' and '.join(where)} of the scan"))
    return Anatomy(tuple(found), lungs)
