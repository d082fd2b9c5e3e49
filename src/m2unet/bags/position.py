"""Position channels: where each pixel lies in a reference box of the scan.

A patch alone cannot tell left from right or apex from base, so a model may take each pixel's position as three more
input channels. Patches and whole slices go through the same arithmetic, so a model sees one convention everywhere.
"""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

LIMIT = 2.0
"""Positions are clipped to [-LIMIT, LIMIT]: far outside the box their exact value says nothing."""


def position_channels(corners: ArrayLike | Tensor, reference: ArrayLike | Tensor, height: int, width: int) -> Tensor:
    """Position of every pixel of some axial patches.

    Voxel i covers [i, i + 1), so its centre is i + 0.5; a reference box runs from its first voxel to one past its
    last. Each axis is mapped linearly so that the box becomes [-1, 1], then clipped to [-2, 2].

    Args:
        corners: ``[n, 3]`` (z, y, x) of each patch's first voxel; may be negative.
        reference: ``[2, 3]`` low and high corner (z, y, x) of the box, in voxels of the same array.
        height, width: of a patch, voxels.

    Returns:
        ``[n, 3, height, width]`` float32; the channels are x (towards the patient's left), y (towards the back) and
        z (towards the head).
    """
    start = torch.as_tensor(corners, dtype=torch.float64).reshape(-1, 3)
    low, high = torch.as_tensor(reference, dtype=torch.float64).reshape(2, 3)
    middle, half = (low + high) / 2, (high - low).clamp(min=1.0) / 2
    z = start[:, 0:1] + 0.5
    y = start[:, 1:2] + torch.arange(height, dtype=torch.float64) + 0.5
    x = start[:, 2:3] + torch.arange(width, dtype=torch.float64) + 0.5
    z, y, x = (
        ((centre - middle[axis]) / half[axis]).clamp(-LIMIT, LIMIT).float() for axis, centre in enumerate((z, y, x))
    )
    shape = (len(start), height, width)
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape), z[:, :, None].expand(shape)], dim=1)


def slice_position(indices: ArrayLike | Tensor, height: int, width: int, reference: ArrayLike | Tensor) -> Tensor:
    """Position of every pixel of some whole axial slices, as :func:`position_channels`.

    Args:
        indices: ``[n]`` slice numbers z.
        height, width: of a slice, voxels, counted from its first row and column.
        reference: see :func:`position_channels`.

    Returns:
        ``[n, 3, height, width]`` float32.
    """
    slices = torch.as_tensor(indices).reshape(-1, 1)
    corners = torch.cat([slices, torch.zeros_like(slices), torch.zeros_like(slices)], dim=1)
    return position_channels(corners, reference, height, width)
