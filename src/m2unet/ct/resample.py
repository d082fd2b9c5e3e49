"""Resampling of planes by two sparse matrices: area averages when shrinking, linear interpolation when growing.

Sparse products run in one thread in a fixed order, so results depend neither on the machine's BLAS nor on its threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Weights = csr_array


def area_weights(source: int, target: int, scale: float) -> Weights:
    """Weights that average the source over each target voxel, or interpolate linearly when growing.

    Target voxel i covers source positions [i * scale, (i + 1) * scale), voxel j of the source [j, j + 1).

    Args:
        source, target: numbers of voxels.
        scale: source voxels a target voxel.

    Returns:
        Sparse ``[target, source]`` float32, rows sum to 1.
    """
    if scale <= 1:
        return linear_weights(source, target, scale)
    low = np.arange(target)[:, None] * scale
    edges = np.arange(source)[None]
    overlap = np.minimum(low + scale, edges + 1) - np.maximum(low, edges)
    weights = np.clip(overlap, 0, None)
    empty = weights.sum(axis=1) == 0
    weights[empty, -1] = 1.0
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def linear_weights(source: int, target: int, scale: float) -> Weights:
    """Weights of linear interpolation at the target voxels' centres; edges are held beyond the first and last centre.

    Args, Returns: as :func:`area_weights`.
    """
    centre = np.clip((np.arange(target) + 0.5) * scale - 0.5, 0, source - 1)
    first = np.minimum(np.floor(centre).astype(int), max(source - 2, 0))
    share = centre - first
    weights = np.zeros((target, source))
    rows = np.arange(target)
    weights[rows, first] += 1 - share
    weights[rows, np.minimum(first + 1, source - 1)] += share
    return csr_array(weights.astype(np.float32))


def resample_plane(planes: NDArray[np.float32], rows: Weights, columns: Weights) -> NDArray[np.float32]:
    """Resample one plane or a stack of planes.

    Args:
        planes: ``[..., y, x]`` float32.
        rows: sparse ``[y', y]``.
        columns: sparse ``[x', x]``.

    Returns:
        ``[..., y', x']`` float32.
    """
    stack = planes.reshape(-1, *planes.shape[-2:])
    result = np.empty((len(stack), rows.shape[0], columns.shape[0]), dtype=np.float32)
    for target, plane in zip(result, stack, strict=True):
        target[:] = (columns @ (rows @ plane).T).T
    return result.reshape(*planes.shape[:-2], *result.shape[-2:])
