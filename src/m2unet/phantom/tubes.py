"""Branching trees of tubes - pulmonary vessels and airways - grown to fill the lobes, and drawn on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import Grid


@dataclass(frozen=True)
class Tubes:
    """Straight pieces of tubes in mm: ``start``, ``end`` ``[n, 3]`` (z, y, x), ``radius`` ``[n, 2]`` at both ends."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    radius: NDArray[np.float32]

    @staticmethod
    def join(parts: list[Tubes]) -> Tubes:
        """All pieces in one."""
        return Tubes(
            np.concatenate([t.start for t in parts]),
            np.concatenate([t.end for t in parts]),
            np.concatenate([t.radius for t in parts]),
        )


def grow_tree(
    root: NDArray[np.floating],
    targets: NDArray[np.floating],
    root_radius: float,
    tip_radius: float,
    rng: np.random.Generator,
) -> Tubes:
    """A binary tree from ``root`` to every one of ``targets`` ``[n, 3]``.

    The targets are halved again and again across their longest direction; each half is reached from its parent's
    branching point by a piece that ends part of the way to the half's centre. Radii follow Murray's law, from the share
    of targets fed.
    """
    count = len(targets)
    points = targets.astype(np.float64)
    group = np.zeros(count, np.int64)
    origin = np.asarray(root, np.float64)[None]
    fed = np.array([count])
    starts, ends, radii = [], [], []
    power = np.log(max(root_radius / tip_radius, 1.01)) / np.log(max(count, 2))

    def radius_of(number: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(tip_radius * number**power, np.float64)

    for _ in range(24):
        centre = np.stack([np.bincount(group, points[:, k], len(fed)) for k in range(3)], 1) / fed[:, None]
        share = np.where(fed == 1, 1.0, 0.40)[:, None]
        node = origin + share * (centre - origin)
        node += (
            np.where(fed > 1, 0.06, 0.0)[:, None]
            * rng.standard_normal(node.shape)
            * np.linalg.norm(node - origin, axis=1, keepdims=True)
        )
        starts.append(origin)
        ends.append(node)
        radii.append(np.stack([radius_of(fed), radius_of(np.maximum(fed * 0.8, 1))], 1))
        if (fed == 1).all():
            break
        keep = fed[group] > 1
        points, group = points[keep], group[keep]
        code = 2 * group + _halves(points - centre[group], group, fed, rng)
        held = np.bincount(code, minlength=2 * len(fed))
        names = np.flatnonzero(held)
        group = (np.cumsum(held > 0) - 1)[code]
        origin, fed = node[names // 2], held[names]
    return Tubes(
        np.concatenate(starts).astype(np.float32),
        np.concatenate(ends).astype(np.float32),
        np.concatenate(radii).astype(np.float32),
    )


def _halves(
    off: NDArray[np.float64], group: NDArray[np.int64], fed: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Split each group of targets across its longest direction: 0 or 1 for every target.

    Args:
        off: ``[n, 3]`` targets relative to their group's centre.
        group: ``[n]`` group of each.
        fed: targets by group.
        rng: where the cut falls, and the first direction tried.
    """
    # One power-iteration step from a random direction is axis enough to split across.
    axis = rng.standard_normal((len(fed), 3))
    for _ in range(3):
        along = (off * axis[group]).sum(1)
        axis = np.stack([np.bincount(group, along * off[:, k], len(fed)) for k in range(3)], 1)
        axis /= np.linalg.norm(axis, axis=1, keepdims=True) + 1e-9
    along = (off * axis[group]).sum(1)
    order = np.lexsort((along, group))
    first = np.searchsorted(group[order], np.arange(len(fed)))
    rank = np.arange(len(order)) - first[group[order]]
    cut = np.clip(np.round(fed * rng.uniform(0.3, 0.7, len(fed))), 1, np.maximum(fed - 1, 1)).astype(np.int64)
    half = np.empty(len(order), np.int64)
    half[order] = (rank >= cut[group[order]]).astype(np.int64)
    return half


def draw_thin(tubes: Tubes, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Share of each touched voxel that thin tubes fill: flat indices and shares, by spreading short beads of volume."""
    spacing = np.array(grid.spacing_mm, np.float32)
    length = np.linalg.norm(tubes.end - tubes.start, axis=1)
    step = float(np.clip(0.5 * spacing.min(), 0.3, 1.5))
    beads = np.maximum(np.ceil(length / step), 1).astype(np.int64)
    owner = np.repeat(np.arange(len(length)), beads)
    first = np.cumsum(beads) - beads
    t = ((np.arange(len(owner)) - first[owner] + 0.5) / beads[owner]).astype(np.float32)[:, None]
    place = tubes.start[owner] * (1 - t) + tubes.end[owner] * t
    radius = tubes.radius[owner, 0] * (1 - t[:, 0]) + tubes.radius[owner, 1] * t[:, 0]
    volume = np.pi * radius**2 * (length / beads)[owner] / spacing.prod()
    index = (place - np.array(grid.origin_mm, np.float32)) / spacing
    low = np.floor(index).astype(np.int64)
    part = index - low
    shape = np.array(grid.shape)
    flat, share = [], []
    for corner in np.ndindex(2, 2, 2):
        at = low + np.array(corner)
        inside = ((at >= 0) & (at < shape)).all(1)
        weight = np.where(np.array(corner) == 1, part, 1 - part).prod(1) * volume
        flat.append(np.ravel_multi_index(tuple(at[inside].T), grid.shape))
        share.append(weight[inside])
    found = np.concatenate(flat)
    if not len(found):
        return found, np.zeros(0, np.float32)
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    filled = np.add.reduceat(np.concatenate(share)[order], starts)
    return ordered[starts], np.minimum(filled, 1).astype(np.float32)


def boxes(tubes: Tubes, grid: Grid, margin_mm: float) -> list[tuple[int, tuple[slice, slice, slice]]]:
    """For each piece that meets the grid, its number and the box of voxels around it."""
    spacing, origin = np.array(grid.spacing_mm), np.array(grid.origin_mm)
    reach = tubes.radius.max(1, keepdims=True) + margin_mm
    low = np.floor((np.minimum(tubes.start, tubes.end) - reach - origin) / spacing).astype(int)
    high = np.ceil((np.maximum(tubes.start, tubes.end) + reach - origin) / spacing).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, grid.shape)
    hit = np.flatnonzero((low < high).all(1))
    return [
        (
            int(k),
            (
                slice(*map(int, (low[k, 0], high[k, 0]))),
                slice(*map(int, (low[k, 1], high[k, 1]))),
                slice(*map(int, (low[k, 2], high[k, 2]))),
            ),
        )
        for k in hit
    ]


def piece_field(
    tubes: Tubes, number: int, axes: tuple[NDArray[np.float32], ...], box: tuple[slice, slice, slice]
) -> NDArray[np.float32]:
    """Distance field of one piece over its box, positive inside."""
    start, step = tubes.start[number], tubes.end[number] - tubes.start[number]
    dz = axes[0][box[0]][:, None, None] - start[0]
    dy = axes[1][box[1]][None, :, None] - start[1]
    dx = axes[2][box[2]][None, None, :] - start[2]
    t = np.clip((dz * step[0] + dy * step[1] + dx * step[2]) / max(float(step @ step), 1e-6), 0, 1)
    gap = np.sqrt((dz - t * step[0]) ** 2 + (dy - t * step[1]) ** 2 + (dx - t * step[2]) ** 2)
    r0, r1 = tubes.radius[number]
    return np.asarray(r0 + t * (r1 - r0) - gap, np.float32)
