"""Lobes of a whole volume: the network runs fully convolutionally over axial slices, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2unet.anatomy import AIRWAY
from m2unet.bags.position import position_channels
from m2unet.bags.sampling import AIR_HU, cut_box, reference_box
from m2unet.config import Config
from m2unet.ct.prepare import PreparedScan
from m2unet.ct.window import apply_window
from m2unet.inference.network import Network
from m2unet.inference.region import Region, next_regions, plan_regions, reaches_edge, whole_plane

BATCH_PIXELS = 1 << 18
"""Pixels a forward pass at most, so that memory does not grow with the number of slices (one slice of 512 x 512)."""


@dataclass(frozen=True)
class RegionScores:
    """What the network said of some slices of a region.

    Attributes:
        region: which slices, and which part of their plane.
        logits: ``[slices, c, height, width]``, on the model's device.
    """

    region: Region
    logits: Tensor


@torch.inference_mode()
def region_scores(
    model: Network, scan: PreparedScan, config: Config, region: Region, *, device: torch.device
) -> Iterator[RegionScores]:
    """Class logits of a region, a few slices at a time.

    Args:
        model: in evaluation mode, with the ``lobes`` task.
        scan: the prepared scan.
        config: the model's run configuration.
        region: what to segment.
        device: where the model is.
    """
    step = max(1, BATCH_PIXELS // (region.height * region.width))
    for start in range(region.start, region.stop, step):
        part = Region(start, min(start + step, region.stop), region.top, region.left, region.height, region.width)
        images = region_images(scan, config, part).to(device)
        yield RegionScores(part, model.segment(images.contiguous(memory_format=torch.channels_last)))


def region_images(scan: PreparedScan, config: Config, region: Region) -> Tensor:
    """``[slices, 1 or 4, height, width]`` windowed, air beyond the array."""
    size = (region.height, region.width)
    planes = cut_box(np.asarray(scan.array[region.start : region.stop]), (region.top, region.left), size, fill=AIR_HU)
    images = torch.from_numpy(apply_window(planes, config.window)).unsqueeze(1)
    reference = reference_box(scan.references, config.bag) if config.model.position else None
    if reference is None:
        return images
    corners = [(z, region.top, region.left) for z in range(region.start, region.stop)]
    return torch.cat([images, position_channels(corners, reference, *size)], dim=1)


def segment_lobes(model: Network, scan: PreparedScan, config: Config, *, device: torch.device) -> NDArray[np.uint8]:
    """Lobe codes on the *volume's* grid.

    Only the lungs' surroundings are computed, see :mod:`m2unet.inference.region`. Of a resampled scan, scores are
    brought back to the volume's resolution before the class is chosen.

    Returns:
        ``[z, y, x]`` uint8, codes of :mod:`m2unet.anatomy`; 0 outside what was segmented.
    """
    mask = np.zeros(scan.volume_shape, dtype=np.uint8)
    for mask in segment_steps(model, scan, config, device=device):  # noqa: B007 - the last one is whole
        pass
    return mask


def segment_steps(
    model: Network, scan: PreparedScan, config: Config, *, device: torch.device
) -> Iterator[NDArray[np.uint8]]:
    """The same mask of :func:`segment_lobes` again and again, each time with one slab more."""
    mask = np.zeros(scan.volume_shape, dtype=np.uint8)
    done: list[Region] = []
    waiting = plan_regions(scan)
    while waiting:
        for region in waiting:
            _segment(model, scan, config, region, mask, device)
            yield mask
        done += waiting
        ends = min(r.start for r in done), max(r.stop for r in done) - 1
        waiting = next_regions(scan, done, (_has_lobes(mask[ends[0]]), _has_lobes(mask[ends[1]])))


def _segment(
    model: Network, scan: PreparedScan, config: Config, region: Region, mask: NDArray[np.uint8], device: torch.device
) -> None:
    """Segment a region into the mask, and once more over the whole plane where lobes reach its edge."""
    touched = False
    for found in region_scores(model, scan, config, region, device=device):
        codes = found.logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        if reaches_edge(scan, found.region, _lobes(codes)):
            touched = True
            break
        _write(scan, found, codes, mask)
    if touched:
        for found in region_scores(model, scan, config, whole_plane(scan, region.start, region.stop), device=device):
            _write(scan, found, found.logits.argmax(dim=1).to(torch.uint8).cpu().numpy(), mask)


def _write(scan: PreparedScan, found: RegionScores, codes: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    region = found.region
    height, width = (min(a, b) for a, b in zip(_room(scan, region), codes.shape[1:], strict=True))
    rows, columns = slice(region.top, region.top + height), slice(region.left, region.left + width)
    target = mask[region.start : region.stop]
    if not scan.resampled:
        plane = np.zeros((len(codes), *scan.array.shape[1:]), dtype=np.uint8)
        plane[:, rows, columns] = codes[:, :height, :width]
        target[:] = scan.restore_codes(plane)
        return
    scores = np.zeros((found.logits.shape[1], len(codes), *scan.array.shape[1:]), dtype=np.float32)
    scores[0] = 1.0  # background where nothing was computed
    soft = torch.softmax(found.logits[:, :, :height, :width].float(), dim=1)
    scores[:, :, rows, columns] = soft.transpose(0, 1).cpu().numpy()
    target[:] = scan.restore_scores(scores)


def _room(scan: PreparedScan, region: Region) -> tuple[int, int]:
    height, width = scan.array.shape[1:]
    return height - region.top, width - region.left


def _lobes(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (codes > 0) & (codes < AIRWAY)


def _has_lobes(plane: NDArray[np.uint8]) -> bool:
    return bool(_lobes(plane).any())
