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
from m2unet.quantify.boxes import Part, code_boxes, union_box
from m2unet.quantify.lobes import check_mask
from m2unet.quantify.pieces import find_pieces

_AIR_BELOW_HU = -900
_LEAST_ML, _MOST_ML = 2.0, 200.0


@dataclass(frozen=True)
class Airways:
    """The airway's lumen outside the lobes.

    Attributes:
        part: where it is; nowhere if none was found.
        volume_ml: None where none was found.
        source: whether the mask held it or the image showed it.
        reason: why there is none.
    """

    part: Part
    volume_ml: float | None
    source: Literal["mask", "image"] | None
    reason: str | None = None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``[z, y, x]`` bool; empty where none was found."""
        return self.part.whole()


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
    z, y, x = codes.shape
    given = code_boxes(codes).get(AIRWAY)
    if given is not None:
        inside = codes[given] == AIRWAY
        return Airways(Part((z, y, x), given, inside), float(inside.sum()) * voxel_ml, "mask")
    middles = [_middle(codes, side) for side in (RIGHT_CODES, LEFT_CODES)]
    nowhere = Part((z, y, x))
    if middles[0] is None or middles[1] is None:
        return Airways(nowhere, None, None, "the airway is looked for between two lungs, and one is absent")
    found = _largest_between(array, codes, (middles[0], middles[1]), voxel_ml)
    if found is None or found.inside is None:
        return Airways(nowhere, None, None, "no piece of air between the lungs looks like the airway")
    return Airways(found, float(found.inside.sum()) * voxel_ml, "image")


def near_airway(airways: Airways, spacing_mm: tuple[float, float, float], margin_mm: float) -> Part:
    """Voxels within ``margin_mm`` of the lumen, the lumen itself among them."""
    part = airways.part
    if margin_mm <= 0 or part.box is None or part.inside is None:
        return part
    import SimpleITK as sitk

    more = [int(margin_mm / step) + 1 for step in spacing_mm]
    before = [min(side.start, width) for side, width in zip(part.box, more, strict=True)]
    after = [min(size - side.stop, width) for side, width, size in zip(part.box, more, part.shape, strict=True)]
    image = sitk.GetImageFromArray(np.pad(part.inside.astype(np.uint8), list(zip(before, after, strict=True))))
    image.SetSpacing([float(s) for s in spacing_mm[::-1]])
    field = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    box = [slice(s.start - a, s.stop + b) for s, a, b in zip(part.box, before, after, strict=True)]
    return Part(part.shape, (box[0], box[1], box[2]), sitk.GetArrayViewFromImage(field) <= margin_mm)


def _middle(codes: NDArray[np.uint8], side: tuple[int, ...]) -> float | None:
    """Mean x of a lung, or None where it is absent."""
    box = union_box(box for code, box in code_boxes(codes).items() if code in side)
    if box is None:
        return None
    profile = np.zeros(box[2].stop - box[2].start, dtype=np.int64)
    for plane in codes[box]:
        profile += np.isin(plane, side).sum(axis=0)
    return float(profile @ np.arange(box[2].start, box[2].stop) / profile.sum())


def _largest_between(
    array: NDArray[np.int16], codes: NDArray[np.uint8], middles: tuple[float, float], voxel_ml: float
) -> Part | None:
    z, y, x = array.shape

    def air(span: slice) -> NDArray[np.bool_]:
        return (array[span] < _AIR_BELOW_HU) & (codes[span] == 0)

    pieces = find_pieces(air, (z, y, x))
    sizes = pieces.sizes * voxel_ml
    sizes[pieces.on_edge] = 0
    sizes[0] = 0
    sizes[(sizes < _LEAST_ML) | (sizes > _MOST_ML)] = 0
    where, numbers = pieces.pick(sizes > 0)
    for number in np.argsort(sizes)[::-1]:
        if sizes[number] == 0:
            return None
        held = where[numbers == number]
        if min(middles) < (held % x).sum() / held.size < max(middles):
            return _part(held, (z, y, x))
    return None


def _part(where: NDArray[np.int64], shape: tuple[int, int, int]) -> Part:
    """From flat indices."""
    at = np.unravel_index(where, shape)
    box = [slice(int(axis.min()), int(axis.max()) + 1) for axis in at]
    inside = np.zeros([side.stop - side.start for side in box], dtype=np.bool_)
    inside[tuple(axis - side.start for axis, side in zip(at, box, strict=True))] = True
    return Part(shape, (box[0], box[1], box[2]), inside)
