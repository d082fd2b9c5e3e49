"""Whether lobes can be what they say they are: one check for every model's prediction and for masks people hand in.

The mask's geometry is judged by :func:`m2unet.cohort.corrections.check_corrected`. Here the scan's HU join in, on
blocks of about 2.5 mm: a lobe holds some air, lies inside the ribs, above the diaphragm and not in fat, and the lobes
cover the air-filled lung that ``check`` finds without a model. A finding marks a figure, it changes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from m2unet.anatomy import AIRWAY, LEFT_CODES, LOBES, RIGHT_CODES
from m2unet.cohort.corrections import FORGIVABLE, ISLAND_SHARE, CheckedMask, FaultCode, MaskFault, check_corrected
from m2unet.ct.body import OUTLINE_HU, body_on
from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.lungs import AIR_HU, Lungs, lungs_on
from m2unet.ct.quality import THICK_MM
from m2unet.ct.volume import Volume

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

AIR_SHARE = 0.1
"""Share of a lobe or a lung that is air-filled (below -350 HU on blocks), under which it holds next to none."""

MISMATCH = 0.15
"""Share of the air-filled lung that the lobes leave out, or of the lobes' air that is no air-filled lung."""

LARGE_PIECE, LARGE_ML = 0.1, 10.0
"""Share of a predicted lobe that may lie apart from it, and volume that may in any case: dense disease that a model
misses can cut a lobe in two, and in an excerpt the same lobe is met in several places."""

LARGE_PIECE_THICK = 0.5
"""The same share where slices are more than 10 mm apart: a slanting lobe does not touch from one to the next."""

PART_MM = 120.0
"""A scan less high than this shows a part of the lungs only."""

OUTSIDE_ML = 30.0
"""So much of the lobes may lie where no lung is; less in an excerpt, in proportion to the lobes."""

OUTSIDE_SHARE = 0.02
"""The same as a share of the lobes: the larger of both counts."""

FAT_HU = (-140.0, -50.0)
FAR_MM = 12.0
"""Fat counts where it is farther than this from air-filled lung: mixed with air, dense disease has fat's HU, too."""

BELOW_MM = 50.0
"""So far below the lowest air-filled lung of its side a dense part of the lung may lie: a base that is wholly dense."""

BONE_HU = 150.0
RIB_MM = 6.0
"""Lobes may reach so far beyond the hull of the bones in a slice."""

CODES: dict[FaultCode, str] = {
    "missing": "lobe-missing",
    "volume": "lobe-volume",
    "sides": "lobe-side",
    "order": "lobe-order",
    "islands": "lobe-pieces",
    "air": "lobe-without-air",
    "outside": "lobes-outside-lung",
    "mismatch": "lobes-lung-mismatch",
}
"""Finding of a prediction for each fault of a mask."""


@dataclass(frozen=True)
class _Look:
    """A scan and its lobes on coarse blocks.

    Attributes:
        grid: the coarse grid.
        average: ``[z, y, x]`` HU.
        codes: ``[z, y, x]`` lobe codes in the middle of each block.
        lungs: air-filled lung without any model; None where there is too little.
        body: the body with skin and fat; None where there is none.
    """

    grid: CoarseGrid
    average: FloatArray
    codes: NDArray[np.uint8]
    lungs: Lungs | None
    body: BoolArray | None

    @property
    def block_ml(self) -> float:
        return float(np.prod(self.grid.spacing_mm)) / 1000

    @property
    def lobes(self) -> BoolArray:
        inside: BoolArray = (self.codes > 0) & (self.codes < AIRWAY)
        return inside

    @property
    def partial(self) -> bool:
        """Whether the scan shows a part of the lungs only."""
        height = len(self.average) * self.grid.spacing_mm[0]
        cut = self.lungs is not None and (self.lungs.cut_top or self.lungs.cut_bottom or self.lungs.cut_sides)
        return cut or height < PART_MM


def check_on_scan(
    mask: NDArray[np.uint8],
    volume: Volume,
    accept: Collection[str] = (),
    *,
    island_share: float = ISLAND_SHARE,
    island_ml: float = 0.0,
) -> CheckedMask:
    """Check a lobe mask by its geometry and by the HU of its scan.

    Args:
        mask: ``[z, y, x]`` lobe codes 0-6 on the volume's grid.
        volume: the scan.
        accept: codes of faults to live with, of :data:`m2unet.cohort.corrections.FORGIVABLE`.
        island_share: share of a lobe that may lie apart from its largest piece.
        island_ml: volume that may in any case.

    Returns:
        All faults, not the first alone.
    """
    look = _look(mask, volume)
    checked = check_corrected(
        mask,
        volume.spacing_mm,
        volume.voxel_ml,
        accept,
        partial=look.partial,
        island_share=island_share,
        island_ml=island_ml,
    )
    if not look.lobes.any():
        return checked
    texts = [("air", text) for text in _without_air(look)]
    texts += [("outside", text) for text in _outside(look)]
    texts += [("mismatch", text) for text in _mismatch(look)]
    accepted = {code for code in FORGIVABLE if code in accept}
    faults = tuple(MaskFault(code, text, code in accepted) for code, text in texts)  # type: ignore[arg-type]
    return replace(checked, faults=checked.faults + faults)


def check_prediction(mask: NDArray[np.uint8], volume: Volume, accept: Collection[str] = ()) -> tuple[Finding, ...]:
    """Findings about the lobes that a model predicted, each with its figures.

    Args:
        mask: ``[z, y, x]`` lobe codes 0-6 on the volume's grid, as they are written.
        volume: the scan, with its findings so far.
        accept: codes of errors to live with as warnings: ``lobes-absent``.

    Raises:
        QualityError: there is no lobe at all, and that is not accepted.
    """
    if not ((mask > 0) & (mask < AIRWAY)).any():
        absent = finding("lobes-absent", "not one voxel of a lobe", "warning" if "lobes-absent" in accept else "error")
        if absent.level == "error":
            raise QualityError((*volume.findings, absent))
        return (absent,)
    share = LARGE_PIECE_THICK if volume.spacing_mm[0] > THICK_MM else LARGE_PIECE
    faults = check_on_scan(mask, volume, island_share=share, island_ml=LARGE_ML).faults
    return tuple(
        finding(name, "; ".join(fault.found for fault in faults if fault.code == code))
        for code, name in CODES.items()
        if any(fault.code == code for fault in faults)
    )


def _look(mask: NDArray[np.uint8], volume: Volume) -> _Look:
    grid = CoarseGrid.fitting(volume.shape, volume.spacing_mm)
    average = grid.average(volume.array)
    at = [np.minimum(np.arange(0, n, f) + f // 2, n - 1) for n, f in zip(grid.shape, grid.factors, strict=True)]
    body = body_on(grid, average, OUTLINE_HU)
    lungs = None if body is None else lungs_on(grid, average, body)
    return _Look(grid, average, mask[np.ix_(*at)], lungs, body)


def _without_air(look: _Look) -> Iterable[str]:
    """Lungs, then lobes, that hold next to no air, with what they hold instead."""
    said: set[int] = set()
    parts = [("the right lung", RIGHT_CODES), ("the left lung", LEFT_CODES)]
    parts += [(lobe.abbreviation, (lobe.code,)) for lobe in LOBES]
    for name, codes in parts:
        inside = np.isin(look.codes, codes)
        if not inside.any() or said.issuperset(codes):
            continue
        hu = look.average[inside]
        share = float((hu < AIR_HU).mean())
        if share < AIR_SHARE:
            said.update(codes)
            yield f"{name} holds next to no air ({100 * share:.0f} % of it), mean {hu.mean():.0f} HU, {_tissue(hu)}"


def _tissue(hu: FloatArray) -> str:
    middle = float(np.median(hu))
    if FAT_HU[0] <= middle <= FAT_HU[1]:
        return "as fat"
    return "as soft tissue, fluid or dense disease" if middle > FAT_HU[1] else "partly dense"


def _outside(look: _Look) -> Iterable[str]:
    """Parts of the lobes that lie where no lung is."""
    lobes = look.lobes
    room = max(min(OUTSIDE_ML, 0.1 * lobes.sum() * look.block_ml), OUTSIDE_SHARE * lobes.sum() * look.block_ml)
    dense = lobes & (look.average > AIR_HU)
    far = np.ones(lobes.shape, bool)
    if look.lungs is not None:
        far = ndimage.distance_transform_edt(~look.lungs.mask_coarse, look.grid.spacing_mm) > FAR_MM
    fat = dense & far & (look.average >= FAT_HU[0]) & (look.average <= FAT_HU[1])
    places = [("in fat", look.grid.disk(0).open(fat))]
    places += [("more than 50 mm below the air-filled lung, as below the diaphragm", _below(look, dense))]
    places += [("outside the ribs", dense & _beyond_ribs(look))]
    if look.body is not None and look.lungs is not None and not look.lungs.cut_sides:
        places += [("outside the body", lobes & ~look.body)]
    for where, part in places:
        ml = float(part.sum()) * look.block_ml
        if ml > room:
            names = [lobe.abbreviation for lobe in LOBES if (part & (look.codes == lobe.code)).any()]
            yield f"{ml:.0f} ml of {', '.join(names)} lie {where} (mean {look.average[part].mean():.0f} HU)"


def _below(look: _Look, dense: BoolArray) -> BoolArray:
    """Dense parts far below the lowest air-filled lung in the lobes of their own side."""
    below = np.zeros(dense.shape, bool)
    if look.lungs is None:
        return below
    for codes in (RIGHT_CODES, LEFT_CODES):
        side = np.isin(look.codes, codes)
        held = np.flatnonzero((side & look.lungs.mask_coarse).any(axis=(1, 2)))
        if held.size:
            first = int(held[0]) - int(np.ceil(BELOW_MM / look.grid.spacing_mm[0]))
            below[: max(0, first)] |= (side & dense)[: max(0, first)]
    return below


def _beyond_ribs(look: _Look) -> BoolArray:
    """Lobes beyond the convex hull of the bones of their slice, where that slice shows ribs all around."""
    beyond = np.zeros(look.codes.shape, bool)
    bone = look.average > BONE_HU
    if look.body is not None:
        bone &= look.body
    _, dy, dx = look.grid.spacing_mm
    for z in np.flatnonzero(look.lobes.any(axis=(1, 2))):
        points = np.argwhere(bone[z]) * (dy, dx)
        if len(points) < 20 or not (np.ptp(points, axis=0) > (100.0, 150.0)).all():
            continue
        try:
            hull = ConvexHull(points)
        except QhullError:
            continue
        at = np.argwhere(look.lobes[z])
        outside = (hull.equations[:, :2] @ (at * (dy, dx)).T + hull.equations[:, 2:]).max(axis=0) > RIB_MM
        beyond[z, at[outside, 0], at[outside, 1]] = True
    return beyond


def _mismatch(look: _Look) -> Iterable[str]:
    """Whether lobes and the air-filled lung of the check without a model cover the same."""
    if look.lungs is None:
        return
    air = look.lungs.mask_coarse
    lobes = look.lobes
    near = look.grid.disk(0).dilate(lobes | (look.codes == AIRWAY))
    left_out = float((air & ~near).sum() / air.sum())
    held = lobes & (look.average < AIR_HU)
    beyond = float((held & ~look.grid.disk(0).dilate(air)).sum() / max(1, int(held.sum())))
    litres = f"lobes {lobes.sum() * look.block_ml / 1000:.1f} l, air-filled lung {look.lungs.ml / 1000:.1f} l"
    if left_out > MISMATCH:
        yield f"{litres}: the lobes leave out {100 * left_out:.0f} % of the air-filled lung"
    if beyond > MISMATCH:
        yield f"{litres}: {100 * beyond:.0f} % of the lobes' air is no air-filled lung by a look without a model"
