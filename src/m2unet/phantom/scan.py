"""One phantom scan, from its plan to the numbers a scanner would store."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LOBE_BY_CODE, LOBE_CODES
from m2unet.ct.volume import Volume, from_source
from m2unet.phantom.anatomy import Anatomy
from m2unet.phantom.cohort import CohortPlan, PatientPlan, ScanPlan
from m2unet.phantom.confounders import ConfounderModel, breathe, place_confounders
from m2unet.phantom.disease import CONSOLIDATION, LESION_NAMES
from m2unet.phantom.frame import Frame
from m2unet.phantom.grid import FloatArray, Grid, Tissues
from m2unet.phantom.lesions import DayLesions, LesionModel, make_lesions
from m2unet.phantom.protocol import SITES, Protocol
from m2unet.phantom.scanner import draw_couch, expose, scan_grid, sublayers
from m2unet.phantom.severity import severity_score

COARSE_MM = 5.0
"""Grid on which a patient's lesions are placed and their extents set."""

_SLAB_VOXELS = 20_000_000  # voxels rendered at once; bounds the memory
_CACHED_VOXELS = 1_500_000  # voxels in which lesions are drawn at once; a few arrays of them fit the processor's cache


@dataclass(frozen=True)
class Truth:
    """What is truly in a scan, counted on its own grid.

    Attributes:
        lobe_ml: volume of each lobe in ml, in the order of the lobe codes.
        lesion_ml: ``[5, 5]`` ml by lobe and lesion code 0-4 (0 is healthy).
    """

    lobe_ml: NDArray[np.float64]
    lesion_ml: NDArray[np.float64]

    @property
    def percent(self) -> NDArray[np.float64]:
        """Percent of each lobe by lesion code, ``[5, 5]``; NaN where the lobe is not in the scan."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100.0 * self.lesion_ml / self.lobe_ml[:, None]

    @property
    def opacified(self) -> NDArray[np.float64]:
        """Percent of each lobe that is opacified in any way, ``[5]``."""
        return self.percent[:, 1:].sum(axis=1)

    @property
    def score(self) -> float:
        """Severity score of this scan as it is; lobes outside the scan count as healthy."""
        share = np.nan_to_num(self.percent) / 100.0
        return float(severity_score(share[:, 1:].sum(axis=1), share[:, CONSOLIDATION]))

    def row(self) -> dict[str, float | None]:
        """Columns of ``truth.csv``: percent by lobe and kind, None where the lobe is not in the scan."""
        columns: dict[str, float | None] = {}
        for index, code in enumerate(LOBE_CODES):
            lobe = LOBE_BY_CODE[code].abbreviation
            present = self.lobe_ml[index] > 0
            columns[f"{lobe}_ml"] = round(float(self.lobe_ml[index]), 2)
            columns[f"{lobe}_opacified"] = round(float(self.opacified[index]), 3) if present else None
            for kind, name in LESION_NAMES.items():
                columns[f"{lobe}_{name}"] = round(float(self.percent[index, kind]), 3) if present else None
        return columns


@dataclass(frozen=True)
class PhantomScan:
    """A rendered scan.

    Attributes:
        plan: what was asked for.
        volume: the picture; ``volume.array`` is canonical ``[z, y, x]`` int16 HU, ``volume.source`` says how the site
            stores it.
        lobes: uint8 ``[z, y, x]`` canonical, codes of :mod:`m2unet.anatomy`, 6 airway.
        lesions: uint8 ``[z, y, x]`` canonical, codes of :mod:`m2unet.phantom.disease`.
        truth: extents counted on this grid.
    """

    plan: ScanPlan
    volume: Volume = field(repr=False)
    lobes: NDArray[np.uint8] = field(repr=False)
    lesions: NDArray[np.uint8] = field(repr=False)
    truth: Truth = field(repr=False)

    @property
    def stored(self) -> NDArray[np.int16]:
        """The picture in the site's own orientation, ``[k, j, i]``."""
        return self.volume.to_source(self.volume.array)


@dataclass(frozen=True)
class Patient:
    """A patient ready to be scanned: anatomy, lesions and confounders in place."""

    plan: PatientPlan
    anatomy: Anatomy
    lesions: LesionModel
    confounders: ConfounderModel


def make_patient(plan: PatientPlan) -> Patient:
    """Place a patient's lesions and confounders in the anatomy."""
    anatomy = Anatomy(plan.anatomy)
    grid = Grid.around(*anatomy.lung_extent_mm, (COARSE_MM, COARSE_MM, COARSE_MM))
    tissues = anatomy.render(grid, vessels=False)
    return Patient(
        plan=plan,
        anatomy=anatomy,
        lesions=make_lesions(plan.disease, tissues, grid, np.random.default_rng([plan.seed, 1])),
        confounders=place_confounders(plan.confounders, tissues, grid, np.random.default_rng([plan.seed, 2])),
    )


def make_scan(plan: CohortPlan, scan_id: str, patient: Patient | None = None) -> PhantomScan:
    """Render one scan of a planned cohort; the same plan and name give the same voxels.

    Args:
        plan: the cohort.
        scan_id: which scan.
        patient: the scan's patient if already made, to save time over several scans.

    Raises:
        ConfigError: if the plan has no such scan.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    scan = plan.scan(scan_id)
    with threadpool_limits(1, user_api="blas"):  # the order of sums, and so the last bit, depends on the threads
        patient = patient or make_patient(plan.patient_of(scan))
        return _render(scan, patient)


def _render(scan: ScanPlan, patient: Patient) -> PhantomScan:
    grid = scan_grid(scan.protocol)
    day = patient.lesions.on_day(scan.state)
    rng = np.random.default_rng([scan.seed, 0])
    array = np.empty(grid.shape, dtype=np.int16)
    lobes = np.empty(grid.shape, dtype=np.uint8)
    lesions = np.empty(grid.shape, dtype=np.uint8)
    back = patient.anatomy.body_extent_mm[1][1]
    thick = max(1, _SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for first in range(0, grid.shape[0], thick):
        last = min(first + thick, grid.shape[0])
        slab = grid.slab(first, last)
        hu = _mean_hu(slab, scan, patient, day, (lobes[first:last], lesions[first:last]))
        if scan.confounders.motion > 0:
            model = patient.confounders
            breathe(hu, slab, scan.confounders.motion, model.base_mm, model.height_mm)
        draw_couch(hu, slab, scan.protocol, back)
        array[first:last] = expose(hu, slab, scan.protocol, rng)
    volume = _as_stored(array, grid, scan.protocol)
    return PhantomScan(scan, volume, lobes, lesions, count_truth(lobes, lesions, grid))


def _mean_hu(
    slab: Grid,
    scan: ScanPlan,
    patient: Patient,
    day: DayLesions,
    masks: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> NDArray[np.float32]:
    """HU averaged over the slice thickness; fills the lobe and lesion masks from the middle of each slice."""
    offsets = sublayers(scan.protocol)
    frame = Frame(patient.plan.anatomy, scan.inspiration)
    thin = max(1, _CACHED_VOXELS // (slab.shape[1] * slab.shape[2]))
    total = np.zeros(0, dtype=np.float32)
    for offset in offsets:
        z, y, x = slab.origin_mm
        layer = Grid(slab.shape, slab.spacing_mm, (z + offset, y, x))
        tissues = patient.anatomy.render(layer, inspiration=scan.inspiration)
        hu = tissues.hu
        for first in range(0, len(hu), thin):
            few = slice(first, min(first + thin, len(hu)))
            part, here = _slices(tissues, few), tissue_grid(layer.slab(few.start, few.stop), frame)
            patient.confounders.apply(part.hu, part, here, scan.confounders)
            kinds = day.apply(part.hu, part, here)
            if abs(offset) < 1e-6:
                masks[0][few], masks[1][few] = part.lobes, kinds
        total = hu if not total.size else np.add(total, hu, out=total)
    if len(offsets) > 1:
        total *= np.float32(1 / len(offsets))
    return total


@dataclass(frozen=True)
class _MovedGrid(Grid):
    """A grid whose heights are those that the tissue at each slice has at full breath."""

    frame: Frame | None = None

    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """As :meth:`Grid.axes`, heights moved."""
        z, y, x = super().axes()
        return (z if self.frame is None else self.frame.full_breath(z)), y, x


def tissue_grid(grid: Grid, frame: Frame) -> Grid:
    """The grid on which lesions, which breathe with the lung, are drawn: the grid itself at full breath."""
    if frame.inspiration >= 1:
        return grid
    return _MovedGrid(grid.shape, grid.spacing_mm, grid.origin_mm, frame)


def _slices(tissues: Tissues, few: slice) -> Tissues:
    """Views of some slices."""
    return Tissues(
        tissues.hu[few], tissues.lobes[few], tissues.pleura_mm[few], tissues.fissure_mm[few], tissues.vessels[few]
    )


def count_truth(lobes: NDArray[np.uint8], lesions: NDArray[np.uint8], grid: Grid) -> Truth:
    """Volumes by lobe and lesion kind, from the masks."""
    counts = np.zeros(8 * (AIRWAY + 1), dtype=np.int64)
    for lobe_slice, lesion_slice in zip(lobes, lesions, strict=True):
        counts += np.bincount((8 * lobe_slice + lesion_slice).ravel(), minlength=counts.size)
    table = counts.reshape(-1, 8)[list(LOBE_CODES), :5] * (np.prod(grid.spacing_mm) / 1000.0)
    return Truth(table.sum(axis=1), table)


def _as_stored(array: NDArray[np.int16], grid: Grid, protocol: Protocol) -> Volume:
    """Turn canonical voxels into a volume whose source is flipped as the site stores it."""
    flips = SITES[protocol.site].flips
    axes = tuple(axis for axis, flip in enumerate(flips) if flip)
    direction, corner = np.eye(3), np.empty(3)
    for axis, flip in enumerate(flips):  # canonical axis z, y, x is LPS component 2, 1, 0
        component = 2 - axis
        corner[component] = grid.origin_mm[axis] + protocol.isocentre_mm[component]
        if flip:
            corner[component] += (grid.shape[axis] - 1) * grid.spacing_mm[axis]
            direction[component, component] = -1.0
    origin = (float(corner[0]), float(corner[1]), float(corner[2]))
    return from_source(np.flip(array, axes), grid.spacing_mm, origin, direction)
