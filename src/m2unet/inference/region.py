"""Which part of which slices is segmented: the coarse lungs with a margin, grown where lobes reach the edge of it.

The coarse lungs are air and miss dense disease, so a region is never trusted: where the network finds lobes at the edge
of what it saw, that slab is segmented again over the whole plane, and slices are added until one is free of lobes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.prepare import PreparedScan

MULTIPLE = 16
"""Four 2 x 2 poolings: the network takes sides divisible by this."""

SLAB_MM = 8.0
"""Height of slices that share a region."""

MARGIN_MM = 4.0
"""How far beyond the coarse lungs, in the plane and along the body, is segmented at once."""

EDGE = 3
"""Lobes within so many voxels of a region's edge reach it."""


@dataclass(frozen=True)
class Region:
    """Some slices, and the part of their plane that is segmented.

    Attributes:
        start, stop: slices ``start <= z < stop``.
        top, left: first row and column, in voxels of the prepared array.
        height, width: multiples of 16; may reach beyond the array, where there is air.
    """

    start: int
    stop: int
    top: int
    left: int
    height: int
    width: int


def plan_regions(scan: PreparedScan) -> list[Region]:
    """Regions in order of their slices; the whole plane of all slices if no lungs were found."""
    depth = scan.array.shape[0]
    thickness = max(1, round(SLAB_MM / scan.spacing_mm[0]))
    boxes = scan.lung_boxes
    if boxes is None or not boxes.any():
        return [whole_plane(scan, z, min(z + thickness, depth)) for z in range(0, depth, thickness)]
    held = np.flatnonzero(boxes.any(axis=1))
    rim = int(np.ceil(MARGIN_MM / scan.spacing_mm[0]))
    low, high = max(0, int(held[0]) - rim), min(depth, int(held[-1]) + 1 + rim)
    return [_around(scan, boxes, z, min(z + thickness, high), rim) for z in range(low, high, thickness)]


def whole_plane(scan: PreparedScan, start: int, stop: int) -> Region:
    """The region of all rows and columns of some slices."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in scan.array.shape[1:])
    return Region(start, stop, 0, 0, height, width)


def next_regions(scan: PreparedScan, done: Sequence[Region], lobes_at: tuple[bool, bool]) -> list[Region]:
    """Slabs beyond the lowest and the highest slice done, where lobes were found in those.

    Args:
        scan: the prepared scan.
        done: regions segmented so far.
        lobes_at: whether the lowest and the highest slice done hold lobes.
    """
    depth = scan.array.shape[0]
    thickness = max(1, round(SLAB_MM / scan.spacing_mm[0]))
    low, high = min(r.start for r in done), max(r.stop for r in done)
    found: list[Region] = []
    if lobes_at[0] and low > 0:
        first = min(done, key=lambda r: r.start)
        found.append(replace(first, start=max(0, low - thickness), stop=low))
    if lobes_at[1] and high < depth:
        last = max(done, key=lambda r: r.stop)
        found.append(replace(last, start=high, stop=min(depth, high + thickness)))
    return found


def reaches_edge(scan: PreparedScan, region: Region, lobes: NDArray[np.bool_]) -> bool:
    """Whether lobes ``[slices, height, width]`` of a region reach an edge of it that is not the array's own."""
    height, width = scan.array.shape[1:]
    inner = (
        (region.top > 0, lobes[:, :EDGE]),
        (region.top + region.height < height, lobes[:, -EDGE:]),
        (region.left > 0, lobes[:, :, :EDGE]),
        (region.left + region.width < width, lobes[:, :, -EDGE:]),
    )
    return any(inside and bool(band.any()) for inside, band in inner)


def _around(scan: PreparedScan, boxes: NDArray[np.int32], start: int, stop: int, rim: int) -> Region:
    """The coarse lungs of these slices and those within the margin, with the margin around them."""
    near = boxes[max(0, start - rim) : stop + rim]
    near = near[near.any(axis=1)]
    if not len(near):  # between two lungs that do not overlap in height
        near = boxes[boxes.any(axis=1)]
    (top, height), (left, width) = (
        _span(int(near[:, 2 * axis].min()), int(near[:, 2 * axis + 1].max()), axis, scan) for axis in (0, 1)
    )
    return Region(start, stop, top, left, height, width)


def _span(low: int, high: int, axis: int, scan: PreparedScan) -> tuple[int, int]:
    """First voxel and length of a side, both multiples of 16, so that poolings fall as they do on the whole plane."""
    margin = int(np.ceil(MARGIN_MM / scan.spacing_mm[axis + 1]))
    start = max(0, low - margin) // MULTIPLE * MULTIPLE
    stop = min(high + margin, scan.array.shape[axis + 1])
    return start, -(-(stop - start) // MULTIPLE) * MULTIPLE
