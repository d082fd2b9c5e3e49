"""Face-connected pieces of a mask, numbered a slab at a time: numbers of the whole would take four bytes a voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SLAB_VOXELS = 1 << 21
"""Voxels numbered at a time."""

Slab = Callable[[slice], NDArray[np.bool_]]
"""Gives the mask ``[slices, y, x]`` of some slices."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of a mask, numbered from 1 in the order of their first voxels.

    Attributes:
        shape: ``(z, y, x)`` of the mask.
        sizes: voxels by number; entry 0 is no piece.
        on_edge: by number, whether the piece reaches the in-plane border.
    """

    shape: tuple[int, int, int]
    sizes: NDArray[np.int64]
    on_edge: NDArray[np.bool_]
    _slab: Slab = field(repr=False)
    _number: NDArray[np.int32] = field(repr=False)

    def pick(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Where some of the pieces are.

        Args:
            chosen: by number, which.

        Returns:
            Flat indices of their voxels, rising, and the number of the piece at each.
        """
        where, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        wanted = np.append(False, chosen[1:])[self._number]
        for start, labels in _labelled(self._slab, self.shape):
            held = np.flatnonzero(wanted[labels])
            where.append(held + start * self.shape[1] * self.shape[2])
            numbers.append(self._number[labels.reshape(-1)[held]])
        return np.concatenate(where), np.concatenate(numbers)


def find_pieces(slab: Slab, shape: tuple[int, int, int]) -> Pieces:
    """Find the pieces of a mask.

    Args:
        slab: gives the mask of some slices; called twice for each, always with the same answer.
        shape: ``(z, y, x)`` of the mask.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    counts, edges, links = [np.zeros(1, np.int64)], [np.zeros(1, np.bool_)], [np.zeros((2, 0), np.int64)]
    total, above = 0, np.zeros(shape[1:], np.int32)
    for _, labels in _labelled(slab, shape):
        last = int(labels.max(initial=0))
        size, edge = _figures(labels, total, last)
        counts.append(size)
        edges.append(edge)
        both = (above > 0) & (labels[0] > 0)
        links.append(np.unique(np.stack([above[both], labels[0][both]]).astype(np.int64), axis=1))
        total, above = max(total, last), labels[-1].copy()
    pairs = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(total + 1, total + 1))
    _, number = connected_components(graph, directed=False)  # numbered by their least member: 0 stays 0
    sizes = np.bincount(number, weights=np.concatenate(counts)).astype(np.int64)
    on_edge = np.zeros(sizes.size, np.bool_)
    on_edge[number[np.concatenate(edges)]] = True
    return Pieces(shape, sizes, on_edge, slab, number.astype(np.int32))


def _labelled(slab: Slab, shape: tuple[int, int, int]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """First slice of each slab and the numbers in it, each slab's going on from those before."""
    from scipy.ndimage import label

    step = max(1, SLAB_VOXELS // max(1, shape[1] * shape[2]))
    total = 0
    for start in range(0, shape[0], step):
        inside = slab(slice(start, min(start + step, shape[0])))
        labels = np.empty(inside.shape, np.int32)
        count = label(inside, output=labels)
        labels[inside] += total
        total += count
        yield start, labels


def _figures(labels: NDArray[np.int32], before: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Voxels of each piece of a slab, and whether it reaches the in-plane border; numbers above ``before``."""
    sizes, edge = np.zeros(max(last, before) + 1, np.int64), np.zeros(max(last, before) + 1, np.bool_)
    for plane in labels:
        held = plane[plane > 0]
        if held.size:
            found = np.bincount(held)
            sizes[: found.size] += found
    for border in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        edge[border] = True
    edge[0] = False
    return sizes[before + 1 :], edge[before + 1 :]
