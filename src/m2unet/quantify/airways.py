"""The airway: taken from the mask where it holds it, else trachea and main bronchi found in the image.

Opacity leaves out what lies on the airway's wall, and the airway's volume is a figure of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LEFT_CODES, RIGHT_CODES
from m2unet.errors import M2UNetError
from m2unet.quantify.lobes import bounding_box, check_mask

_AIR_BELOW_HU = -900
_LEAST_ML, _MOST_ML = 2.0, 200.0


@dataclass(frozen=True)
class Airways:
    """The airway's lumen outside the lobes.

    Attributes:
        mask: ``[z, y, x]`` bool; empty where none was found.
        volume_ml: None where none was found.
        source: whether the mask held it or the image showed it.
        reason: why there is none.
    """

    mask: NDArray[np.bool_]
    volume_ml: float | None
    source: Literal["mask", "image"] | None
    reason: str | None = None


def find_airways(array: NDArray[np.int16], mask: NDArray[Any], spacing_mm: tuple[float, float, float]) -> Airways:
    """Find the airway.

    In the image it is the largest piece of air (below -900 HU) outside the lobes that lies between the two lungs,
    does not reach the in-plane border, and holds 2-200 ml.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes 0-6; 6 is airway.
        spacing_mm: ``(z, y, x)``.

    Raises:
        M2UNetError: the mask is on another grid or holds an unknown code.
    """
    codes = check_mask(mask)
    if array.shape != codes.shape:
        raise M2UNetError("The mask is not on the image's grid", found=codes.shape, expected=array.shape)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    given = codes == AIRWAY
    if given.any():
        return Airways(given, float(given.sum()) * voxel_ml, "mask")
    middles = [_middle(codes, side) for side in (RIGHT_CODES, LEFT_CODES)]
    if middles[0] is None or middles[1] is None:
        return Airways(given, None, None, "the airway is looked for between two lungs, and one is absent")
    found = _largest_between(array, codes, (middles[0], middles[1]), voxel_ml)
    if found is None:
        return Airways(given, None, None, "no piece of air between the lungs looks like the airway")
    return Airways(found, float(found.sum()) * voxel_ml, "image")


def near_airway(airways: Airways, spacing_mm: tuple[float, float, float], margin_mm: float) -> NDArray[np.bool_]:
    """Voxels within ``margin_mm`` of the lumen, the lumen itself among them; ``[z, y, x]`` bool."""
    if margin_mm <= 0:
        return airways.mask.copy()
    box = bounding_box(airways.mask, [int(margin_mm / step) + 1 for step in spacing_mm])
    if box is None:
        return airways.mask.copy()
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(airways.mask[box].astype(np.uint8))
    image.SetSpacing([float(s) for s in spacing_mm[::-1]])
    field = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    near = np.zeros(airways.mask.shape, dtype=np.bool_)
    near[box] = sitk.GetArrayViewFromImage(field) <= margin_mm
    return near


def _middle(codes: NDArray[np.uint8], side: tuple[int, ...]) -> float | None:
    """Mean x of a lung, or None where it is absent."""
    profile = np.isin(codes, side).sum(axis=(0, 1))
    return float(profile @ np.arange(profile.size) / profile.sum()) if profile.any() else None


def _largest_between(
    array: NDArray[np.int16], codes: NDArray[np.uint8], middles: tuple[float, float], voxel_ml: float
) -> NDArray[np.bool_] | None:
    from scipy.ndimage import label

    air = array < _AIR_BELOW_HU
    air &= codes == 0
    parts = np.empty(air.shape, dtype=np.int32)
    label(air, output=parts)
    del air
    sizes = _sizes(parts) * voxel_ml
    for border in (parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        sizes[np.unique(border)] = 0
    sizes[0] = 0
    sizes[(sizes < _LEAST_ML) | (sizes > _MOST_ML)] = 0
    for part in np.argsort(sizes)[::-1]:
        if sizes[part] == 0:
            return None
        held: NDArray[np.bool_] = parts == np.int32(part)
        profile = held.sum(axis=(0, 1))
        if min(middles) < profile @ np.arange(profile.size) / profile.sum() < max(middles):
            return held
    return None


def _sizes(parts: NDArray[np.int32]) -> NDArray[np.float64]:
    """Voxels of each piece; of each slice only what lies in a piece is counted."""
    sizes = np.zeros(int(parts.max()) + 1)
    for plane in parts:
        held = plane[plane > 0]
        if held.size:
            found = np.bincount(held)
            sizes[: found.size] += found
    return sizes
