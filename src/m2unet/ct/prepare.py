"""From a volume to what the network sees: cropped to the body, optionally resampled in the plane; and the way back.

All slices are kept. The crop is an axial box around the body (Sect. III-A of the paper), grown to a least size; outside
the body everything becomes air. Nothing is windowed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.config import PrepareConfig
from m2unet.ct.body import body_on
from m2unet.ct.coarse import CoarseGrid
from m2unet.ct.lungs import lungs_on
from m2unet.ct.resample import Weights, area_weights, linear_weights, resample_plane
from m2unet.ct.volume import Volume
from m2unet.errors import ScanError

AIR_HU = -1024

Box = NDArray[np.float32]


@dataclass(frozen=True)
class PreparedScan:
    """A scan as the network sees it, and the way back to the volume's grid.

    Attributes:
        array: ``[z, y, x]`` int16 HU; -1024 outside the body and where the box reaches beyond the image.
        spacing_mm: ``(z, y, x)`` of ``array``.
        references: ``[2, 3]`` float32 boxes in voxels of ``array``: low corner and one past the high corner
            ``(z, y, x)``, voxel i covering [i, i + 1). ``body`` is always there; ``lungs`` is None where none were
            found.
        volume_shape: ``(z, y, x)`` of the volume it was made from.
        window: ``(y0, y1, x0, x1)``, the part of the volume's plane that ``array`` covers, in its voxels; may reach
            beyond the image.
        scale: ``(y, x)`` voxels of the volume a voxel of ``array``; 1 without resampling.
        lung_boxes: ``[z, 4]`` int32, ``(y0, y1, x0, x1)`` of the coarse lungs in each slice, in voxels of ``array``,
            zeros where there are none; None where no lungs were found, and for a scan opened from the store.
    """

    array: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]
    references: dict[str, Box | None]
    volume_shape: tuple[int, int, int]
    window: tuple[int, int, int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    lung_boxes: NDArray[np.int32] | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def resampled(self) -> bool:
        """Whether the plane was resampled."""
        return self.scale != (1.0, 1.0)

    def crop_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a mask from the volume's grid to the prepared one.

        Args:
            mask: ``[z, y, x]`` uint8 codes on the volume's grid.

        Returns:
            Codes on the grid of ``array``, 0 beyond the image. Resampled, a voxel takes the code that covers most of
            it.

        Raises:
            ScanError: if the mask is not on the volume's grid.
        """
        if mask.shape != self.volume_shape:
            raise ScanError("The mask is not on the volume's grid", found=mask.shape, expected=self.volume_shape)
        out = np.zeros(self.array.shape, dtype=np.uint8)
        weights = self._down if self.resampled else None
        for z, plane in enumerate(mask):
            cut = _window_of(plane, self.window, 0)
            out[z] = cut if weights is None else _vote(cut, weights)
        return out

    def restore_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a mask from the prepared grid back to the volume's.

        Args:
            mask: ``[z, y, x]`` uint8 codes on the grid of ``array``.

        Returns:
            ``[z, y, x]`` uint8 of ``volume_shape``, 0 outside the box. Without resampling exactly the inverse of
            :meth:`crop_mask` inside the box; with it, the code that wins after linear interpolation.

        Raises:
            ScanError: if the mask is not on the prepared grid.
        """
        if mask.shape != self.array.shape:
            raise ScanError("The mask is not on the prepared grid", found=mask.shape, expected=self.array.shape)
        out = np.zeros(self.volume_shape, dtype=np.uint8)
        for z, plane in enumerate(mask):
            self._paste(out[z], _vote(plane, self._up) if self.resampled else plane)
        return out

    def restore_codes(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paste codes of some slices of a scan that was not resampled into the volume's plane.

        Args:
            codes: ``[slices, y, x]`` uint8 on the prepared plane.

        Returns:
            ``[slices, y, x]`` uint8 on the volume's plane, 0 outside the box.
        """
        out = np.zeros((len(codes), *self.volume_shape[1:]), dtype=np.uint8)
        for target, plane in zip(out, codes, strict=True):
            self._paste(target, plane)
        return out

    def restore_scores(self, scores: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The winning class on the volume's grid from scores on the prepared one, for some slices.

        Scores are interpolated linearly in the plane before the class is chosen, one slice at a time, so that memory
        stays at one slice of the volume a class.

        Args:
            scores: ``[c, slices, y, x]`` logits or probabilities of some slices of ``array``.

        Returns:
            ``[slices, y, x]`` uint8 on the volume's plane, 0 outside the box.

        Raises:
            ScanError: if the scores' plane is not the prepared one.
        """
        if scores.ndim != 4 or scores.shape[2:] != self.array.shape[1:]:
            raise ScanError(
                "The scores are not on the prepared grid",
                found=scores.shape,
                expected=f"(classes, slices, {self.array.shape[1]}, {self.array.shape[2]})",
            )
        out = np.zeros((scores.shape[1], *self.volume_shape[1:]), dtype=np.uint8)
        for number in range(scores.shape[1]):
            planes = np.asarray(scores[:, number], dtype=np.float32)
            if self.resampled:
                planes = resample_plane(planes, *self._up)
            self._paste(out[number], planes.argmax(axis=0).astype(np.uint8))
        return out

    def restore_values(self, values: NDArray[np.float32], stride: int = 1) -> Iterator[NDArray[np.float32]]:
        """Bring values from the prepared grid, or one that is coarser in the plane, to the volume's, slice by slice.

        Args:
            values: ``[z, gy, gx]`` float32; cell g covers voxels ``[g * stride, (g + 1) * stride)`` of ``array`` along
                its axis, and the last may reach beyond it.
            stride: voxels of ``array`` a cell.

        Yields:
            For each slice ``[y, x]`` float32 on the volume's plane: interpolated linearly, 0 outside the box.

        Raises:
            ScanError: if the values are not on such a grid.
        """
        depth, height, width = self.array.shape
        expected = (depth, -(-height // stride), -(-width // stride))
        if values.shape != expected:
            raise ScanError("The values are not on the prepared grid", found=values.shape, expected=expected)
        rows, columns = (
            linear_weights(expected[axis + 1], self._sides[axis], 1 / (self.scale[axis] * stride)) for axis in (0, 1)
        )
        for plane in values:
            out = np.zeros(self.volume_shape[1:], dtype=np.float32)
            self._paste(out, resample_plane(plane, rows, columns))
            yield out

    def to_volume(self, y: float, x: float) -> tuple[float, float]:
        """Bring a place in the plane, in voxels of ``array`` (voxel i covers [i, i + 1)), to voxels of the volume."""
        return self.window[0] + y * self.scale[0], self.window[2] + x * self.scale[1]

    def _paste(self, target: NDArray[Any], plane: NDArray[Any]) -> None:
        y0, y1, x0, x1 = self.window
        height, width = target.shape
        top, left = max(0, y0), max(0, x0)
        bottom, right = min(y1, height), min(x1, width)
        target[top:bottom, left:right] = plane[top - y0 : bottom - y0, left - x0 : right - x0]

    @cached_property
    def _sides(self) -> tuple[int, int]:
        y0, y1, x0, x1 = self.window
        return y1 - y0, x1 - x0

    @property
    def _down(self) -> tuple[Weights, Weights]:
        if "down" not in self._cache:
            self._cache["down"] = _weights(self._sides, self.array.shape[1:], self.scale)
        return self._cache["down"]

    @property
    def _up(self) -> tuple[Weights, Weights]:
        if "up" not in self._cache:
            height, width = self.array.shape[1:]
            self._cache["up"] = (
                linear_weights(height, self._sides[0], 1 / self.scale[0]),
                linear_weights(width, self._sides[1], 1 / self.scale[1]),
            )
        return self._cache["up"]


def prepare_volume(volume: Volume, config: PrepareConfig | None = None) -> PreparedScan:
    """Crop a volume to the body, set everything else to air, and resample the plane if asked.

    Args:
        volume: the scan.
        config: threshold of the body, least box (in voxels of the result), spacing in the plane; the paper's if None.

    Returns:
        The prepared scan. Where no body can be found the whole plane is kept as it is.
    """
    config = config or PrepareConfig()
    grid = CoarseGrid.fitting(volume.shape, volume.spacing_mm)
    average = grid.average(volume.array)
    body = body_on(grid, average, config.body_threshold_hu)
    if body is None:
        body = np.ones(average.shape, dtype=bool)
    lungs = lungs_on(grid, average, body)
    low, high = grid.box(body)
    scale = (1.0, 1.0)
    if config.inplane_mm is not None:
        scale = (config.inplane_mm / volume.spacing_mm[1], config.inplane_mm / volume.spacing_mm[2])
    sides = [_side(low[axis], high[axis], scale[axis - 1], config.min_box) for axis in (1, 2)]
    spans = [_span(low[a], high[a], sides[a - 1], scale[a - 1], volume.shape[a]) for a in (1, 2)]
    window = (*spans[0], *spans[1])
    array = np.empty((volume.shape[0], sides[0], sides[1]), dtype=np.int16)
    weights = (
        None if scale == (1.0, 1.0) else _weights((spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]), sides, scale)
    )
    for z, plane in _masked_planes(volume.array, grid, body):
        cut = _window_of(plane, window, AIR_HU)
        array[z] = cut if weights is None else np.rint(resample_plane(cut.astype(np.float32), *weights))
    references = {"body": _reference(low, high, window, scale), "lungs": None}
    boxes = None
    if lungs is not None:
        references["lungs"] = _reference(lungs.low, lungs.high, window, scale)
        boxes = _slice_boxes(grid, lungs.mask_coarse, window, scale)
    dz, dy, dx = volume.spacing_mm
    spacing = (dz, dy * scale[0], dx * scale[1])
    return PreparedScan(array, spacing, references, volume.shape, window, scale, boxes)


def _slice_boxes(
    grid: CoarseGrid, lungs: NDArray[np.bool_], window: tuple[int, int, int, int], scale: tuple[float, float]
) -> NDArray[np.int32]:
    """Box of the coarse lungs in each slice, rounded outwards; see :attr:`PreparedScan.lung_boxes`."""
    boxes = np.zeros((grid.shape[0], 4), dtype=np.int32)
    for z in range(grid.shape[0]):
        plane = lungs[z // grid.factors[0]]
        if not plane.any():
            continue
        for axis in (0, 1):
            at = np.flatnonzero(plane.any(axis=1 - axis))
            ends = np.array([at[0], at[-1] + 1]) * grid.factors[axis + 1] - window[2 * axis]
            boxes[z, 2 * axis] = np.floor(ends[0] / scale[axis])
            boxes[z, 2 * axis + 1] = np.ceil(ends[1] / scale[axis])
    return boxes


def _side(low: float, high: float, scale: float, least: int) -> int:
    return max(least, int(np.ceil((high - low) / scale)))


def _span(low: float, high: float, side: int, scale: float, image: int) -> tuple[int, int]:
    """Voxels of the image that a side covers, first and one past the last: around the body, in the image if it fits."""
    length = int(np.ceil(side * scale - 1e-9))
    start = int(np.floor((low + high - length) / 2 + 0.5))
    start = min(max(start, 0), image - length) if length <= image else (image - length) // 2
    return start, start + length


def _masked_planes(
    array: NDArray[np.int16], grid: CoarseGrid, body: NDArray[np.bool_]
) -> Iterator[tuple[int, NDArray[np.int16]]]:
    _, fy, fx = grid.factors
    previous, mask = -1, np.empty(0)
    for z, plane in enumerate(array):
        block = z // grid.factors[0]
        if block != previous:
            mask = body[block].repeat(fy, axis=0)[: grid.shape[1]].repeat(fx, axis=1)[:, : grid.shape[2]]
            previous = block
        yield z, np.where(mask, plane, np.int16(AIR_HU))


def _window_of(plane: NDArray[Any], window: tuple[int, int, int, int], fill: int) -> NDArray[Any]:
    y0, y1, x0, x1 = window
    height, width = plane.shape
    cut = plane[max(0, y0) : min(y1, height), max(0, x0) : min(x1, width)]
    if cut.shape == (y1 - y0, x1 - x0):
        return cut
    before = (max(0, -y0), max(0, -x0))
    after = (y1 - y0 - cut.shape[0] - before[0], x1 - x0 - cut.shape[1] - before[1])
    return np.pad(cut, ((before[0], after[0]), (before[1], after[1])), constant_values=fill)


def _weights(sides: tuple[int, int], out: Any, scale: tuple[float, float]) -> tuple[Weights, Weights]:
    rows, columns = (area_weights(sides[axis], int(out[axis]), scale[axis]) for axis in (0, 1))
    return rows, columns


def _vote(plane: NDArray[np.uint8], weights: tuple[Weights, Weights]) -> NDArray[np.uint8]:
    """Resample codes: each one's share is resampled, the greatest wins."""
    codes = np.flatnonzero(np.bincount(plane.ravel(), minlength=1)).astype(np.uint8)
    if len(codes) == 1:
        return np.full((weights[0].shape[0], weights[1].shape[0]), codes[0], dtype=np.uint8)
    shares = resample_plane((plane == codes[:, None, None]).astype(np.float32), *weights)
    return codes[shares.argmax(axis=0)]


def _reference(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    window: tuple[int, int, int, int],
    scale: tuple[float, float],
) -> Box:
    offset = np.array([0, window[0], window[2]])
    return np.asarray((np.stack([low, high]) - offset) / np.array([1.0, *scale]), dtype=np.float32)
