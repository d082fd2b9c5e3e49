"""Where in a scan a severity comes from: a heat map in the scan's own geometry, and the patches that counted most.

The bags are those of the estimate (the same seed, the same streams), so that what is explained is what was said. Each
bag's log-odds are shared among the patches (:mod:`m2unet.models.evidence`), and a finer map tells where in them the
evidence lies; the heat of a voxel is the mean of the finer maps that looked at it, smoothed because random patches
leave gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from m2unet.config import Config
from m2unet.ct.prepare import PreparedScan
from m2unet.inference.network import Network
from m2unet.inference.severity import SeverityEstimate, bag_answer, gather_estimate, seeded_batches

SUBDIVISION = 2
"""Heat is gathered on a grid this much finer than the networks' finer maps."""

SMOOTH_MM = 5.0
"""Standard deviation of the smoothing through the slices; in the plane it is a pixel of the finer map."""

TOP_PATCHES = 5
_NEAR_MM, _OVERLAP = 10.0, 0.25
"""Of patches nearer than this in z that share more than this part of their area, only the strongest is named."""


@dataclass(frozen=True)
class TopPatch:
    """A patch that counted much, in voxels of the volume.

    Attributes:
        z: slice of the volume, from 0 at the feet.
        box: ``(y0, y1, x0, x1)``, first and one past the last voxel, cut to the image.
        peak: ``(y, x)`` of the middle of the strongest pixel of its finer map.
        contribution: the patch's part in its bag's log-odds of severe.
        share: of all that spoke for severe in that bag, 0 to 1.
        bag: which bag, from 0.
    """

    z: int
    box: tuple[int, int, int, int]
    peak: tuple[int, int]
    contribution: float
    share: float
    bag: int

    @property
    def slice_number(self) -> int:
        """Number of the slice, counted from 1 at the feet, as the pictures count."""
        return self.z + 1


@dataclass(frozen=True)
class Explanation:
    """Where a severity estimate comes from.

    Attributes:
        heat: ``[z, y, x]`` int8 on the volume's grid: percent of the largest heat, positive where it speaks for severe.
        peak: the largest heat: of one pixel of a finer map, averaged over those that looked there.
        log_odds: mean over the bags, of severe.
        base: mean over the bags of what bags of average positions would have.
        patches: those that counted most for severe, first the strongest; at most :data:`TOP_PATCHES`.
        looked_at: share of the prepared scan's voxels that any patch covered.
    """

    heat: NDArray[np.int8] = field(repr=False)
    peak: float
    log_odds: float
    base: float
    patches: tuple[TopPatch, ...]
    looked_at: float


@dataclass(frozen=True)
class _BagParts:
    """Parts ``[n]`` of the patches of one bag in its log-odds, and their finer maps ``[n, h, w]``."""

    corners: NDArray[np.int32]
    sums: NDArray[np.float32]
    parts: NDArray[np.float32]


def explain_severity(
    model: Network, scan: PreparedScan, config: Config, *, seed: int, device: torch.device, bags: int | None = None
) -> tuple[SeverityEstimate, Explanation]:
    """The estimate that :func:`m2unet.inference.severity.estimate_severity` gives, and where it comes from.

    Args: as there.
    """
    answers, parts, margins, bases = [], [], [], []
    for bag, batch in seeded_batches(scan, config, seed, bags):
        found = model.evidence(batch.to(device))
        answers.append(bag_answer(found.output))
        sums = found.positions.float().sum(dim=(1, 2)).cpu().numpy()
        parts.append(_BagParts(bag.corners, sums, found.fine.float().cpu().numpy()))
        margins.append(found.margin)
        bases.append(found.base)
    heat, looked_at = _heat(scan, parts, config.bag.patch)
    peak = float(np.abs(heat).max(initial=0.0))
    explanation = Explanation(
        heat=_on_volume(scan, heat, _stride(parts, config.bag.patch), peak),
        peak=peak,
        log_odds=float(np.mean(margins)),
        base=float(np.mean(bases)),
        patches=top_patches(scan, parts, config.bag.patch),
        looked_at=looked_at,
    )
    return gather_estimate(answers, seed), explanation


def _stride(parts: Sequence[_BagParts], side: int) -> int:
    """Voxels of the prepared scan a cell of the heat grid, in the plane."""
    return max(1, side // (parts[0].parts.shape[1] * SUBDIVISION))


def _heat(scan: PreparedScan, bags: Sequence[_BagParts], side: int) -> tuple[NDArray[np.float32], float]:
    """Mean part ``[z, gy, gx]`` on a grid that is coarser in the plane, and the share of it that was looked at."""
    from scipy.ndimage import gaussian_filter

    stride = _stride(bags, side)
    depth, height, width = scan.array.shape
    total = np.zeros((depth, -(-height // stride), -(-width // stride)), dtype=np.float32)
    looks = np.zeros_like(total)
    for bag in bags:
        _paint(total, looks, bag, side, stride)
    looked_at = float(np.mean(looks > 0))
    spread = side / bags[0].parts.shape[1] / stride
    sigma = (SMOOTH_MM / scan.spacing_mm[0], spread, spread)
    total, looks = (gaussian_filter(grid, sigma, mode="constant", truncate=3) for grid in (total, looks))
    heat = np.divide(total, looks, out=np.zeros_like(total), where=looks > 0.02)
    return heat, looked_at


def _paint(total: NDArray[np.float32], looks: NDArray[np.float32], bag: _BagParts, side: int, stride: int) -> None:
    """Add the patches of a bag: each pixel of the finer map to all cells it covers, a look to all the patch covers."""
    rows, columns = total.shape[1:]
    offsets = (np.arange(side // stride) + 0.5) * stride
    for (z, top, left), parts in zip(bag.corners.tolist(), bag.parts, strict=True):
        y = np.floor((top + offsets) / stride).astype(int)
        x = np.floor((left + offsets) / stride).astype(int)
        fine = parts[np.ix_(*(_cells(len(offsets), size) for size in parts.shape))]
        held_y, held_x = (y >= 0) & (y < rows), (x >= 0) & (x < columns)
        place = np.ix_([z], y[held_y], x[held_x])
        total[place] += fine[np.ix_(held_y, held_x)][None]
        looks[place] += 1


def _cells(length: int, size: int) -> NDArray[np.int64]:
    return np.arange(length) * size // length


def _on_volume(scan: PreparedScan, heat: NDArray[np.float32], stride: int, peak: float) -> NDArray[np.int8]:
    out = np.zeros(scan.volume_shape, dtype=np.int8)
    if peak > 0:
        for z, plane in enumerate(scan.restore_values(heat, stride)):
            out[z] = np.rint(np.clip(plane * (100 / peak), -100, 100))
    return out


def top_patches(scan: PreparedScan, bags: Sequence[_BagParts], side: int) -> tuple[TopPatch, ...]:
    """The patches with the largest parts over all bags, of neighbours that show the same only the strongest."""
    found = []
    for number, bag in enumerate(bags):
        sums = bag.sums
        speaking = float(sums[sums > 0].sum())
        for patch in np.flatnonzero(sums > 0):
            place = _place(scan, bag, int(patch), side)
            found.append(TopPatch(*place, float(sums[patch]), float(sums[patch]) / speaking, number))
    chosen: list[TopPatch] = []
    for candidate in sorted(found, key=lambda item: -item.contribution):
        if not any(_same(candidate, other, scan) for other in chosen):
            chosen.append(candidate)
        if len(chosen) == TOP_PATCHES:
            break
    return tuple(chosen)


def _place(
    scan: PreparedScan, bag: _BagParts, patch: int, side: int
) -> tuple[int, tuple[int, int, int, int], tuple[int, int]]:
    """Slice, box and strongest position of a patch in the volume."""
    z, top, left = bag.corners[patch].tolist()
    parts = bag.parts[patch]
    row, column = divmod(int(parts.argmax()), parts.shape[1])
    y0, x0 = scan.to_volume(top, left)
    y1, x1 = scan.to_volume(top + side, left + side)
    y, x = scan.to_volume(top + (row + 0.5) * side / parts.shape[0], left + (column + 0.5) * side / parts.shape[1])
    _, height, width = scan.volume_shape
    box = (max(0, round(y0)), min(height, round(y1)), max(0, round(x0)), min(width, round(x1)))
    peak = (int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1)))
    return z, box, peak


def _same(one: TopPatch, other: TopPatch, scan: PreparedScan) -> bool:
    if abs(one.z - other.z) * scan.spacing_mm[0] > _NEAR_MM:
        return False
    (a0, a1, b0, b1), (c0, c1, d0, d1) = one.box, other.box
    both = max(0, min(a1, c1) - max(a0, c0)) * max(0, min(b1, d1) - max(b0, d0))
    return both > _OVERLAP * min((a1 - a0) * (b1 - b0), (c1 - c0) * (d1 - d0))


def share_on(heat: NDArray[np.int8], mask: NDArray[np.bool_]) -> float | None:
    """Share of the positive heat that falls on a mask; None where nothing is positive."""
    positive = np.clip(heat, 0, None).astype(np.float64)
    whole = float(positive.sum())
    return float(positive[mask].sum()) / whole if whole else None
