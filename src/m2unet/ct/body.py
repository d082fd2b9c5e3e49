"""The body: what remains when air, table and everything beside the patient is taken away.

Worked out on a coarse grid (:mod:`m2unet.ct.coarse`), where noise is averaged out, in two steps. First the outline of
the whole patient with skin and fat (above -500 HU), thin shells such as a table's removed by an opening. Then, inside
that outline, the binarisation asked for (0 HU in Sect. III-A of the paper), its largest piece, closed and filled slice
by slice, so that the lungs lie inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.ct.coarse import CoarseGrid

OUTLINE_HU = -500
"""Skin and fat lie above, clothes, blankets and mattress mostly below."""

SHELL_MM = 6.0
"""Structures thinner than this (a table's shell, a cable) are no part of the outline."""

OUTSIDE_HU = -940
"""Air outside lies below; a lung that the field of view cuts open lies above, unless it is emphysematous."""

PADDING_HU = -1024

EDGE_MM = 5.0
"""How deep under the outline air counts as inner air."""

GAP_MM = 10.0
"""Gaps in the wall of the chest up to this width are closed before it is filled."""


IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3])
"""Neighbours by edges within a slice."""


@dataclass(frozen=True)
class Body:
    """The patient's body.

    Attributes:
        mask: ``[z, y, x]`` bool; lungs, bowel and everything enclosed belong to it.
        low: first voxel ``(z, y, x)`` of its bounding box, float64.
        high: one past its last voxel, float64.
    """

    mask: NDArray[np.bool_]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def find_body(array: NDArray[np.int16], spacing_mm: tuple[float, float, float], threshold_hu: float = 0) -> Body | None:
    """Find the body in a CT.

    Args:
        array: ``[z, y, x]`` HU.
        spacing_mm: ``(z, y, x)``.
        threshold_hu: tissue above it is body; 0 leaves out the fat under the skin, -500 keeps it.

    Returns:
        The body, precise to about 2.5 mm, or None if nothing in the scan looks like one.
    """
    grid = CoarseGrid.fitting(array.shape, spacing_mm)
    coarse = body_on(grid, grid.average(array), threshold_hu)
    if coarse is None:
        return None
    low, high = grid.box(coarse)
    return Body(grid.expand(coarse), low, high)


def body_on(grid: CoarseGrid, average: NDArray[np.float32], threshold_hu: float) -> NDArray[np.bool_] | None:
    """The body on the coarse grid, or None; see :func:`find_body`."""
    outline = _outline(grid, average)
    if outline is None:
        return None
    tissue = outline & (average > threshold_hu)
    # air deep inside holds a wall together that the field of view cuts open
    inner_air = grid.disk(EDGE_MM).erode(outline | unseen(average)) & (average < OUTLINE_HU)
    body = largest(tissue | inner_air)
    if body is None:
        return None
    return grid.disk(0).dilate(_filled(grid, body) & outline) & outline  # blocks cut by the surface are inside


def _outline(grid: CoarseGrid, average: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    matter = average > OUTLINE_HU
    disk = grid.disk(SHELL_MM / 2)
    opened = disk.open(matter)
    core = largest(opened if opened.any() else matter)
    if core is None:
        return None
    aerated, count = ndimage.label(disk.open((average > OUTSIDE_HU) & ~matter))
    between = np.bincount(aerated[_between(core)], minlength=count + 1)
    inner = 2 * between > np.bincount(aerated.ravel(), minlength=count + 1)
    inner[0] = False
    return _filled(grid, core | inner[aerated])


def unseen(average: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Blocks beyond a round field of view: padding in every slice. ``[1, y, x]``."""
    return np.all(average <= PADDING_HU, axis=0, keepdims=True)


def _between(core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks with something of the core both before and behind them."""
    before = np.maximum.accumulate(core, axis=1)
    behind = np.maximum.accumulate(core[:, ::-1], axis=1)[:, ::-1]
    return before & behind


def _filled(grid: CoarseGrid, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close gaps of the wall in each slice, then fill what it encloses."""
    outside, _ = ndimage.label(
        np.pad(~grid.disk(GAP_MM / 2).close(mask), ((0, 0), (1, 1), (1, 1)), constant_values=True), IN_PLANE
    )
    rim = np.zeros(int(outside.max()) + 1, dtype=bool)
    rim[outside[:, 0, 0]] = True
    return ~rim[outside[:, 1:-1, 1:-1]]


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest 3-D piece of a mask, by faces; None if it is empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()
