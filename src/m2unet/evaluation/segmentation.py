"""Lobe overlap and surface agreement of two label volumes.

With G the true and S the predicted voxels of a lobe (Sect. III of the paper): DSC = 2 |G and S| / (|G| + |S|),
SEN = |G and S| / |G|, PPV = |G and S| / |S|. A lobe absent from both is undefined: None with a reason, never 0 or 1.
Codes are those of :mod:`m2unet.anatomy`; background and airway are not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LOBES
from m2unet.errors import M2UNetError

ABSENT_FROM_BOTH = "absent from both masks"
ABSENT_FROM_TRUTH = "absent from the true mask"
ABSENT_FROM_PREDICTION = "absent from the predicted mask"

_CODES = AIRWAY + 1
_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True)
class LobeOverlap:
    """Overlap of one lobe.

    Attributes:
        dsc, sen, ppv: in [0, 1], or None where undefined.
        truth_voxels, predicted_voxels, common_voxels: |G|, |S| and |G and S|.
        reason: why a figure is None; None when all three are defined.
    """

    dsc: float | None
    sen: float | None
    ppv: float | None
    truth_voxels: int
    predicted_voxels: int
    common_voxels: int
    reason: str | None = None


@dataclass(frozen=True)
class SegmentationMetrics:
    """Overlap of a scan's five lobes.

    Attributes:
        lobes: by abbreviation (``RUL`` ...), in the order of the lobe table.
        dsc, sen, ppv: mean over the lobes where each is defined; None where it is defined for none.
        reason: why a mean is None; None when all three are defined.
    """

    lobes: Mapping[str, LobeOverlap]
    dsc: float | None
    sen: float | None
    ppv: float | None
    reason: str | None = None

    def values(self) -> dict[str, float | None]:
        """Mean figures and each lobe's DSC in one flat mapping: ``dsc sen ppv dsc_RUL ...``."""
        means = {"dsc": self.dsc, "sen": self.sen, "ppv": self.ppv}
        return means | {f"dsc_{name}": lobe.dsc for name, lobe in self.lobes.items()}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {
            "dsc": self.dsc,
            "sen": self.sen,
            "ppv": self.ppv,
            "reason": self.reason,
            "lobes": {name: asdict(lobe) for name, lobe in self.lobes.items()},
        }


class OverlapCounter:
    """Gathers the joint histogram of two label volumes piece by piece, so that neither need be in memory whole."""

    def __init__(self) -> None:
        self._table = np.zeros((_CODES, _CODES), dtype=np.int64)

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Count one piece: any two arrays of one shape, lobe codes 0-6.

        Raises:
            M2UNetError: shapes differ, labels are no integers, or a code is unknown.
        """
        if truth.shape != predicted.shape:
            raise M2UNetError("Two masks must lie on one grid", found=f"shapes {truth.shape} and {predicted.shape}")
        left, right = truth.reshape(-1), predicted.reshape(-1)
        for start in range(0, left.size, _SLAB_VOXELS):
            stop = start + _SLAB_VOXELS
            pairs = _codes(left[start:stop]).astype(np.uint16) * np.uint16(_CODES) + _codes(right[start:stop])
            self._table += np.bincount(pairs, minlength=_CODES * _CODES).reshape(_CODES, _CODES)

    @property
    def table(self) -> NDArray[np.int64]:
        """``[7, 7]`` voxel counts, true code by predicted code."""
        return self._table.copy()

    def metrics(self) -> SegmentationMetrics:
        """The overlap of what was added so far."""
        lobes = {lobe.abbreviation: self._lobe(lobe.code) for lobe in LOBES}
        dsc, sen, ppv = (_mean(getattr(lobe, name) for lobe in lobes.values()) for name in ("dsc", "sen", "ppv"))
        reason = None
        if dsc is None:
            reason = "no lobe is present in either mask"
        elif sen is None:
            reason = "no lobe is present in the true mask"
        elif ppv is None:
            reason = "no lobe is present in the predicted mask"
        return SegmentationMetrics(lobes, dsc, sen, ppv, reason)

    def _lobe(self, code: int) -> LobeOverlap:
        truth, predicted = int(self._table[code].sum()), int(self._table[:, code].sum())
        common = int(self._table[code, code])
        return LobeOverlap(
            dsc=2 * common / (truth + predicted) if truth + predicted else None,
            sen=common / truth if truth else None,
            ppv=common / predicted if predicted else None,
            truth_voxels=truth,
            predicted_voxels=predicted,
            common_voxels=common,
            reason=_absence(truth, predicted),
        )


def segmentation_metrics(truth: NDArray[Any], predicted: NDArray[Any]) -> SegmentationMetrics:
    """Overlap of two whole label volumes.

    Args:
        truth: any shape, integer lobe codes 0-6.
        predicted: the same shape.

    Raises:
        M2UNetError: shapes differ, labels are no integers, or a code is unknown.
    """
    counter = OverlapCounter()
    counter.add(truth, predicted)
    return counter.metrics()


def _codes(labels: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.issubdtype(labels.dtype, np.integer):
        raise M2UNetError("A lobe mask holds integer codes", found=labels.dtype, expected="uint8")
    if labels.size and (int(labels.max()) > AIRWAY or int(labels.min()) < 0):
        raise M2UNetError(
            "A lobe mask holds an unknown code",
            found=int(labels.max()) if labels.max() > AIRWAY else int(labels.min()),
            expected=f"0-{AIRWAY}",
            mend="recode masks of other tools to this package's lobe codes first",
        )
    return labels.astype(np.uint8, copy=False)


def _absence(truth: int, predicted: int) -> str | None:
    if truth and predicted:
        return None
    if not truth and not predicted:
        return ABSENT_FROM_BOTH
    return ABSENT_FROM_PREDICTION if truth else ABSENT_FROM_TRUTH


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class SurfaceAgreement:
    """Agreement of one lobe's surface with the true one.

    Attributes:
        surface_dice: share of both surfaces that lies within the tolerance of the other, in [0, 1]; 0 when only one
            of the masks has the lobe, None when neither has.
        hd95_mm: 95 % Hausdorff distance, mm: the larger of the two directed 95th percentiles; None when the lobe is
            absent from either mask.
        reason: why a figure is None.
    """

    surface_dice: float | None
    hd95_mm: float | None
    reason: str | None = None


def surface_metrics(
    truth: NDArray[Any],
    predicted: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = 2.0,
    direction: NDArray[np.float64] | None = None,
) -> dict[str, SurfaceAgreement]:
    """Surface Dice and 95 % Hausdorff distance of each lobe, in millimetres.

    A lobe's surface is the set of its voxels with a face neighbour outside it (the image's edge counts as outside);
    distances run between voxel centres. Surface Dice after Nikolov et al. 2021 (J Med Internet Res 23(7):e26151),
    counted in surface voxels rather than in area.

    Args:
        truth: ``[z, y, x]`` integer lobe codes 0-6.
        predicted: the same shape.
        spacing_mm: ``(z, y, x)``.
        tolerance_mm: how far two surfaces may lie apart and still agree.
        direction: 3 x 3 in ITK's convention (columns are the unit vectors of x, y, z); a tilted gantry's are not at
            right angles, and distances are those in the body. None for right angles.

    Returns:
        By lobe abbreviation.

    Raises:
        M2UNetError: masks are not 3-D, shapes differ, labels are no integers, or a code is unknown.
    """
    if truth.ndim != 3 or truth.shape != predicted.shape:
        raise M2UNetError("Two 3-D masks must lie on one grid", found=f"shapes {truth.shape} and {predicted.shape}")
    left, right = _codes(truth), _codes(predicted)
    axes = np.eye(3) if direction is None else direction
    to_mm = (axes * np.asarray(spacing_mm[::-1]))[:, ::-1].T  # from an index (z, y, x) to millimetres (x, y, z)
    return {lobe.abbreviation: _surface(left == lobe.code, right == lobe.code, to_mm, tolerance_mm) for lobe in LOBES}


def surface_means(surfaces: Mapping[str, SurfaceAgreement]) -> dict[str, float | None]:
    """Means over the lobes where each figure is defined, and each lobe's, in one flat mapping.

    Args:
        surfaces: of :func:`surface_metrics`.

    Returns:
        ``surface_dice hd95_mm surface_dice_RUL ... hd95_mm_RUL ...``; a missed lobe counts as 0 in the mean surface
        Dice and is left out of the mean distance.
    """
    names = ("surface_dice", "hd95_mm")
    found = {name: {lobe: getattr(surface, name) for lobe, surface in surfaces.items()} for name in names}
    means = {name: _mean(by_lobe.values()) for name, by_lobe in found.items()}
    return means | {f"{name}_{lobe}": value for name in names for lobe, value in found[name].items()}


def _surface(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], to_mm: NDArray[np.float64], tolerance_mm: float
) -> SurfaceAgreement:
    reason = _absence(int(truth.any()), int(predicted.any()))
    if reason is not None:
        return SurfaceAgreement(None if reason == ABSENT_FROM_BOTH else 0.0, None, reason)
    points = [_surface_points(mask, to_mm) for mask in (truth, predicted)]
    there, back = _distances(points[1], points[0]), _distances(points[0], points[1])
    near = int(np.sum(there <= tolerance_mm)) + int(np.sum(back <= tolerance_mm))
    return SurfaceAgreement(
        surface_dice=near / (there.size + back.size),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
    )


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    spans = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        spans.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(spans)


def _surface_points(mask: NDArray[np.bool_], to_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions in mm, ``[n, 3]``, of the voxels with a face neighbour outside the mask; ``to_mm`` is ``[3, 3]``."""
    box = _bounding_box(mask)
    inside = mask[box]
    inner = inside.copy()
    for axis in range(3):
        held, moved = np.moveaxis(inner, axis, 0), np.moveaxis(inside, axis, 0)
        held[1:] &= moved[:-1]
        held[:-1] &= moved[1:]
        held[0] = held[-1] = False
    corner = np.array([side.start for side in box])
    return np.asarray((np.argwhere(inside & ~inner) + corner) @ to_mm)


def _distances(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance in mm from each source point to the nearest target point."""
    # a tree of the surface's points grows with the surface, a distance map with the volume
    from scipy.spatial import cKDTree

    found, _ = cKDTree(target, balanced_tree=False, compact_nodes=False).query(source)
    return np.asarray(found, dtype=np.float64)
