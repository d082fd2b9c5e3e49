"""Where a mask lies on its scan's grid: the same grid in any axis order, or a part of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.ct.volume import Volume
from m2unet.errors import ScanError

GRID_TOLERANCE = 0.1
"""How far a corner of the mask may lie from the image's corner, in sides of the smallest voxel edge."""

_MEND = "resample the mask to the image with nearest neighbours, or pair it with the image it was drawn on"


def check_grid(mask: Volume, volume: Volume, name: str) -> None:
    """Check that a mask covers its image's grid.

    Raises:
        ScanError: another grid, saying what differs.
    """
    problem = f"The lobe mask {name} does not lie on its image's grid"
    if mask.shape != volume.shape:
        raise ScanError(problem, found=f"shape {mask.shape}", expected=f"{volume.shape} (z, y, x)", mend=_MEND)
    distance = _corners_apart(mask, volume, np.zeros(3))
    if distance > GRID_TOLERANCE * min(volume.spacing_mm):
        raise _differing(problem, mask, volume, distance)


def placed(mask: Volume, volume: Volume, name: str) -> NDArray[np.int16]:
    """A mask that covers a part of its image's grid, on the whole grid.

    Args:
        mask: of the same voxels as the image; smaller, or larger with nothing beyond the image.
        volume: the image.
        name: of the file, for messages.

    Returns:
        ``[z, y, x]`` of ``volume.shape``, 0 where the mask does not reach.

    Raises:
        ScanError: its voxels are not the image's, or it marks voxels beyond the image.
    """
    exact = (np.linalg.inv(volume.affine) @ np.append(mask.origin_mm, 1.0))[:3]
    start = np.rint(exact)
    distance = _corners_apart(mask, volume, start)
    if distance > GRID_TOLERANCE * min(volume.spacing_mm):
        raise _differing(f"The lobe mask {name} does not lie on its image's grid", mask, volume, distance)
    first = [int(at) for at in start[::-1]]
    into = tuple(slice(max(at, 0), at + size) for at, size in zip(first, mask.shape, strict=True))
    whole = np.zeros(volume.shape, dtype=np.int16)
    target = whole[into]
    source = tuple(slice(max(-at, 0), max(-at, 0) + size) for at, size in zip(first, target.shape, strict=True))
    target[:] = mask.array[source]
    beyond = np.count_nonzero(mask.array) - np.count_nonzero(target)
    if beyond:
        raise ScanError(
            f"The lobe mask {name} reaches beyond its image",
            found=f"{beyond} marked voxels outside",
            mend="pair it with the image it was drawn on",
        )
    return whole


def _corners_apart(mask: Volume, volume: Volume, start: NDArray[np.float64]) -> float:
    """The greatest distance, mm, between corners of the mask and of the part of the image that begins at ``start``."""
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in mask.shape[::-1]], [1])).reshape(4, -1)
    shifted = ends + np.append(start, 0)[:, None]
    return float(np.linalg.norm((mask.affine @ ends - volume.affine @ shifted)[:3], axis=0).max())


def _differing(problem: str, mask: Volume, volume: Volume, distance: float) -> ScanError:
    parts: dict[str, tuple[ArrayLike, ArrayLike, float]] = {
        "spacing (z, y, x) mm": (mask.spacing_mm, volume.spacing_mm, 1e-3),
        "origin (x, y, z) mm": (mask.origin_mm, volume.origin_mm, GRID_TOLERANCE * min(volume.spacing_mm)),
        "direction": (mask.direction.ravel(), volume.direction.ravel(), 1e-4),
    }
    differing = [part for part, (a, b, most) in parts.items() if np.abs(np.asarray(a) - np.asarray(b)).max() > most]
    named = differing or list(parts)
    return ScanError(
        problem,
        found="; ".join(f"{part} {_rounded(parts[part][0])}" for part in named) + f"; corners {distance:.3g} mm apart",
        expected="; ".join(f"{part} {_rounded(parts[part][1])}" for part in named),
        mend=_MEND,
    )


def _rounded(values: object) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in np.asarray(values).tolist()) + ")"
