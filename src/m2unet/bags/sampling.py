"""Draw a bag: random patches of random axial slices of one scan (He et al. 2020, Sect. III-A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from m2unet.bags.bag import Bag
from m2unet.config import BagConfig

AIR_HU = -1024
"""Fills a patch where the slice is smaller than it."""

UNKNOWN_SEVERITY = -1

REGION_MARGIN = 0.05
"""How far beyond the coarse lungs' box patches are still drawn, as a share of its side; it may miss a rim."""


@runtime_checkable
class BagSource(Protocol):
    """What a bag can be drawn from: a scan just prepared, or one opened from the store."""

    @property
    def array(self) -> NDArray[np.int16]:
        """``[z, y, x]`` HU."""

    @property
    def references(self) -> Mapping[str, NDArray[np.float32] | None]:
        """Boxes ``[2, 3]`` by name: ``body`` always, ``lungs`` or None."""


@runtime_checkable
class LabelledSource(BagSource, Protocol):
    """A scan that also knows its name, severity and lobes."""

    @property
    def scan_id(self) -> str:
        """Which scan."""

    @property
    def severity(self) -> int:
        """1, 0 or -1."""

    @property
    def lobes(self) -> NDArray[np.uint8] | None:
        """``[z, y, x]`` codes on the array's grid, or None."""


def draw_bag(source: BagSource, config: BagConfig, rng: np.random.Generator) -> Bag:
    """Draw a bag of ``config.size`` patches.

    No slice is used twice before every slice was used once, so slices repeat only when there are fewer than patches.
    Within a slice every position is equally likely; where the slice is smaller than a patch, it lies at a random place
    inside it, surrounded by air. Patches come in the order of their slices: disks like it, and pooling does not care.

    Args:
        source: the scan; only the voxels of the patches are read. Severity, lobes and name are taken along if it is a
            :class:`LabelledSource`.
        config: size of the bag and of its patches, reference of the position channels.
        rng: decides everything random.
    """
    side = config.patch
    (z0, y0, x0), (z1, y1, x1) = sampling_region(source, config)
    corners = np.stack(
        [
            z0 + _slices(z1 - z0, config.size, rng),
            y0 + _starts(y1 - y0, side, config.size, rng),
            x0 + _starts(x1 - x0, side, config.size, rng),
        ],
        axis=1,
    ).astype(np.int32)
    labelled = source if isinstance(source, LabelledSource) else None
    lobes = None if labelled is None else labelled.lobes
    return Bag(
        scan_id="" if labelled is None else labelled.scan_id,
        patches=cut_patches(source.array, corners, side, fill=AIR_HU),
        lobes=None if lobes is None else cut_patches(lobes, corners, side, fill=0),
        corners=corners,
        reference=reference_box(source.references, config),
        severity=UNKNOWN_SEVERITY if labelled is None else labelled.severity,
    )


def sampling_region(source: BagSource, config: BagConfig) -> NDArray[np.int64]:
    """The voxels that patches are drawn from: the whole body crop, or the box of the lungs with a margin.

    Returns:
        ``[2, 3]`` first voxel and one past the last (z, y, x), inside the array. The whole array where
        ``config.region`` is ``body`` or no lungs were found.
    """
    shape = np.asarray(source.array.shape)
    whole = np.stack([np.zeros(3, dtype=np.int64), shape])
    lungs = source.references.get("lungs") if config.region == "lungs" else None
    if lungs is None:
        return whole
    margin = REGION_MARGIN * (lungs[1] - lungs[0])
    low, high = np.floor(lungs[0] - margin), np.ceil(lungs[1] + margin)
    box = np.clip(np.stack([low, high]).astype(np.int64), 0, shape)
    return box if bool((box[1] > box[0]).all()) else whole


def reference_box(
    references: Mapping[str, NDArray[np.float32] | None], config: BagConfig
) -> NDArray[np.float32] | None:
    """The box that position is measured in: as configured, the body where no lungs were found, None without position.

    Returns:
        ``[2, 3]`` float32 low and high corner (z, y, x), or None.
    """
    if config.position == "none":
        return None
    box = references.get(config.position)
    return references["body"] if box is None else box


def cut_patches(array: NDArray[Any], corners: NDArray[np.int32], side: int, *, fill: int) -> NDArray[Any]:
    """Cut square axial patches out of a volume.

    Args:
        array: ``[z, y, x]``; may be memory-mapped, only the patches are read.
        corners: ``[n, 3]`` (z, y, x) of each patch's first voxel; y and x may lie outside the slice.
        side: of a patch, voxels.
        fill: value outside the slice.

    Returns:
        ``[n, side, side]`` of the array's dtype.
    """
    plain = np.asarray(array)  # a view without the bookkeeping that np.memmap adds to every slice
    _, height, width = plain.shape
    patches = np.empty((len(corners), side, side), dtype=plain.dtype)
    for patch, (z, y, x) in zip(patches, corners.tolist(), strict=True):
        top, left = max(0, -y), max(0, -x)
        bottom, right = min(side, height - y), min(side, width - x)
        if (bottom - top, right - left) != (side, side):
            patch[:] = fill
        patch[top:bottom, left:right] = plain[z, y + top : y + bottom, x + left : x + right]
    return patches


def cut_box(planes: NDArray[Any], corner: tuple[int, int], size: tuple[int, int], *, fill: int) -> NDArray[Any]:
    """Cut the same rectangle out of some slices.

    Args:
        planes: ``[n, y, x]``.
        corner: first row and column, inside the slices.
        size: rows and columns; may reach beyond the slices.
        fill: value there.

    Returns:
        ``[n, *size]`` of the slices' dtype.
    """
    (top, left), (height, width) = corner, size
    cut = planes[:, top : top + height, left : left + width]
    if cut.shape[1:] == size:
        return cut
    out = np.full((len(planes), height, width), fill, dtype=planes.dtype)
    out[:, : cut.shape[1], : cut.shape[2]] = cut
    return out


def _slices(depth: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds, rest = divmod(count, depth)
    chosen = [np.tile(np.arange(depth), rounds), rng.permutation(depth)[:rest]]
    return np.sort(np.concatenate(chosen))


def _starts(extent: int, side: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    spare = extent - side
    return rng.integers(min(0, spare), max(0, spare), size=count, endpoint=True)
