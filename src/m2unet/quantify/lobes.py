"""Volumes of lobes, lungs and both lungs from a lobe mask; what is absent or cut off says so.

A volume that cannot be had is None with a reason, never 0. A lobe that runs out of the field of view keeps the volume
that was seen, marked partial, with the edges it runs out of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from m2unet.anatomy import AIRWAY, LEFT_CODES, LOBE_BY_CODE, LOBES, RIGHT_CODES
from m2unet.errors import M2UNetError

GROUPS: Mapping[str, tuple[int, ...]] = {
    **{lobe.abbreviation: (lobe.code,) for lobe in LOBES},
    "right": RIGHT_CODES,
    "left": LEFT_CODES,
    "lungs": RIGHT_CODES + LEFT_CODES,
}
"""What figures are given for, by name: five lobes, each lung, both lungs; and the lobe codes each is made of."""

_EDGES = (("feet end", "head end"), ("front edge", "back edge"), ("right edge", "left edge"))
FAT_HU = (-150.0, -30.0)
GAS_HU = -970.0
"""The airway's gas lies below, averaged; all but the worst emphysema above."""

AVERAGE_MM = 4.0

_PADDING = "edge of the reconstructed field"


@dataclass(frozen=True)
class LobeQuantity:
    """Volume of a lobe, a lung or both.

    Attributes:
        volume_ml: millilitres; None when nothing of it is in the mask.
        partial: whether the volume is known to be too small: the field of view cuts it, or a lobe of the group is
            absent. False also when nobody looked for cuts.
        cut: the edges of the field of view it runs out of.
        reason: why the volume is None or partial.
    """

    volume_ml: float | None
    partial: bool
    cut: tuple[str, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def check_mask(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """A lobe mask as uint8 after checking its codes.

    Args:
        mask: ``[z, y, x]`` integer codes 0-6 of :mod:`m2unet.anatomy`.

    Raises:
        M2UNetError: not 3-D, not integers, or an unknown code.
    """
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
        raise M2UNetError("A lobe mask is a 3-D array of integer codes", found=f"{mask.dtype} with shape {mask.shape}")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if low < 0 or high > AIRWAY:
        raise M2UNetError(
            "A lobe mask holds an unknown code",
            found=high if high > AIRWAY else low,
            expected=f"0-{AIRWAY}",
            mend="say which tool's codes the mask uses, so that they can be translated",
        )
    return mask.astype(np.uint8, copy=False)


def bounding_box(inside: NDArray[Any], margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice] | None:
    """Smallest box around what is not 0, grown by so many voxels within the array; None around nothing.

    Args:
        inside: ``[z, y, x]``.
        margin: ``(z, y, x)`` voxels.
    """
    plane: NDArray[np.bool_] = np.asarray(inside.any(axis=0))
    spans = []
    for held, more in zip((inside.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0)), margin, strict=True):
        at = np.flatnonzero(held)
        if not at.size:
            return None
        spans.append(slice(max(0, int(at[0]) - more), min(held.size, int(at[-1]) + 1 + more)))
    return spans[0], spans[1], spans[2]


def count_codes(codes: NDArray[Any], size: int, among: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Voxels of each code below ``size``, ``[size]``; higher codes are left out.

    Slice by slice, as counting widens what it counts to 64 bits.

    Args:
        codes: ``[z, y, x]``.
        size: how many codes are counted.
        among: ``[z, y, x]``, only voxels where it is not 0 are counted; all if None.
    """
    total = np.zeros(size, dtype=np.int64)
    for z, plane in enumerate(codes):
        held = plane.reshape(-1) if among is None else plane[among[z] > 0]
        total += np.bincount(held, minlength=size)[:size]
    return total


def lobe_volumes(
    mask: NDArray[Any], voxel_ml: float, cut_by_field: Mapping[int, Sequence[str]] | None = None
) -> dict[str, LobeQuantity]:
    """Volume of each lobe, each lung and both.

    Args:
        mask: ``[z, y, x]`` lobe codes.
        voxel_ml: volume of one voxel, millilitres.
        cut_by_field: by lobe code, the edges it runs out of, from :func:`find_cuts`; None when not looked for.

    Returns:
        By name of :data:`GROUPS`.

    Raises:
        M2UNetError: as :func:`check_mask`, or a voxel without volume.
    """
    if not (np.isfinite(voxel_ml) and voxel_ml > 0):
        raise M2UNetError("A voxel needs a positive volume", found=voxel_ml, expected="millilitres")
    counts = count_codes(check_mask(mask), AIRWAY + 1)
    return {name: _quantity(codes, counts, voxel_ml, cut_by_field) for name, codes in GROUPS.items()}


def _quantity(
    codes: tuple[int, ...], counts: NDArray[np.int64], voxel_ml: float, cuts: Mapping[int, Sequence[str]] | None
) -> LobeQuantity:
    present = [code for code in codes if counts[code]]
    if not present:
        text = "the lobe is absent from the mask" if len(codes) == 1 else "no lobe of it is in the mask"
        return LobeQuantity(None, False, (), text)
    edges = tuple(dict.fromkeys(edge for code in present for edge in (cuts or {}).get(code, ())))
    missing = [LOBE_BY_CODE[code].abbreviation for code in codes if code not in present]
    reasons = [f"runs out of the field of view at the {' and the '.join(edges)}"] if edges else []
    reasons += [f"{' and '.join(missing)} absent from the mask"] if missing else []
    return LobeQuantity(float(counts[present].sum() * voxel_ml), bool(reasons), edges, "; ".join(reasons) or None)


def find_cuts(
    mask: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    array: NDArray[np.int16] | None = None,
    least_contact_mm2: float = 25.0,
) -> dict[int, tuple[str, ...]]:
    """Which edges of the field of view each lobe runs out of.

    A lobe is cut where it lies on the first or last slice or on the in-plane border with at least
    ``least_contact_mm2`` of contact: a smaller one is the tip of an apex or noise of a mask. With the image, contact
    with the constant padding outside a circular field counts as well, and only contact of lung: where the image shows
    the gas of the airway or fat, no lung is cut, whatever the mask says.

    Args:
        mask: ``[z, y, x]`` lobe codes; z towards the head, y towards the back, x towards the patient's left.
        spacing_mm: ``(z, y, x)``.
        array: ``[z, y, x]`` HU of the same grid, or None to look at the array's own edges only.
        least_contact_mm2: area of contact from which a lobe counts as cut.

    Returns:
        By lobe code, for the lobes present: edges' names, empty where whole.

    Raises:
        M2UNetError: as :func:`check_mask`, or the image is on another grid.
    """
    codes = check_mask(mask)
    if array is not None and array.shape != codes.shape:
        raise M2UNetError("The mask is not on the image's grid", found=codes.shape, expected=array.shape)
    counts = count_codes(codes, AIRWAY + 1)
    cuts: dict[int, list[str]] = {lobe.code: [] for lobe in LOBES if counts[lobe.code]}
    dz, dy, dx = spacing_mm
    for axis, face_mm2 in enumerate((dy * dx, dz * dx, dz * dy)):
        for end, name in zip((0, -1), _EDGES[axis], strict=True):
            face: NDArray[np.uint8] = np.asarray(codes.take(end, axis=axis))
            if array is not None:
                others = [step for other, step in enumerate(spacing_mm) if other != axis]
                face = _lung_only(face, np.asarray(array.take(end, axis=axis)), others)
            held = np.bincount(face.reshape(-1), minlength=AIRWAY + 1)
            for code, edges in cuts.items():
                if held[code] and held[code] * face_mm2 >= least_contact_mm2:
                    edges.append(name)
    if array is not None:
        contact = _padding_contact(codes, array, spacing_mm)
        for code, edges in cuts.items():
            if contact[code] > 0 and contact[code] >= least_contact_mm2:
                edges.append(_PADDING)
    return {code: tuple(edges) for code, edges in cuts.items()}


def _padding_contact(
    codes: NDArray[np.uint8], array: NDArray[np.int16], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """In-plane contact area of each code with the padding, square millimetres, ``[7]``."""
    area = np.zeros(AIRWAY + 1)
    value = _padding_value(array)
    if value is None:
        return area
    for z in np.flatnonzero(codes.any(axis=(1, 2))):
        outside = array[z] == value
        if _slice_contact(codes[z], outside, spacing_mm).any():
            # a dark spot inside the lung is no padding
            lung = _lung_only(codes[z], array[z], spacing_mm[1:], outside)
            area += _slice_contact(lung, _joined_to_corners(outside), spacing_mm)
    return area


def _lung_only(
    codes: NDArray[np.uint8],
    hu: NDArray[np.int16],
    spacing_mm: Sequence[float],
    outside: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """The codes of a plane where its HU, averaged over some 4 mm of the mask, are neither fat nor the airway's gas."""
    if not codes.any():
        return codes
    inside = codes > 0 if outside is None else (codes > 0) & ~outside
    size = [max(1, 2 * round(AVERAGE_MM / step / 2) + 1) for step in spacing_mm]
    weight = uniform_filter(inside.astype(np.float32), size, mode="constant")
    mean = uniform_filter(np.where(inside, hu, 0).astype(np.float32), size, mode="constant") / np.maximum(weight, 1e-6)
    fat = (mean > FAT_HU[0]) & (mean < FAT_HU[1])
    return np.where(fat | (mean < GAS_HU), np.uint8(0), codes)


def _slice_contact(
    codes: NDArray[np.uint8], outside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Area of the faces that each lobe code shares with ``outside`` in one slice, square millimetres, ``[7]``."""
    dz, dy, dx = spacing_mm
    along_y = np.concatenate([codes[1:][outside[:-1]], codes[:-1][outside[1:]]])
    along_x = np.concatenate([codes[:, 1:][outside[:, :-1]], codes[:, :-1][outside[:, 1:]]])
    area = np.bincount(along_y, minlength=AIRWAY + 1) * dz * dx + np.bincount(along_x, minlength=AIRWAY + 1) * dz * dy
    area[0] = 0.0
    return area


def _padding_value(array: NDArray[np.int16]) -> int | None:
    """The value outside the reconstructed circle: dark, and the same in every corner of nearly all slices."""
    corners = array[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    value = int(np.bincount(corners.reshape(-1).astype(np.int64) + 32768).argmax()) - 32768
    same = (corners == value).all(axis=1).mean()
    return value if value <= -1000 and same >= 0.9 else None


def _joined_to_corners(outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import label

    parts, _ = label(outside)
    wanted = np.unique(parts[[0, 0, -1, -1], [0, -1, 0, -1]])
    return np.isin(parts, wanted[wanted > 0])
