"""Lobes of a whole volume: the network runs fully convolutionally over axial slices, slab by slab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from m2unet.bags.position import slice_position
from m2unet.bags.sampling import reference_box
from m2unet.config import Config
from m2unet.ct.prepare import PreparedScan
from m2unet.ct.window import apply_window
from m2unet.inference.network import Network

MULTIPLE = 16
"""Four 2 x 2 poolings: the network takes sides divisible by this."""

SLAB_PIXELS = 1 << 19
"""Pixels a forward pass at most, so that memory does not grow with the number of slices (two slices of 512 x 512)."""

MARGIN = 0.15
"""How far beyond the coarse lungs' height slices are still segmented, as a share of that height."""


@dataclass(frozen=True)
class SlabScores:
    """Class probabilities of some slices of the prepared scan.

    Attributes:
        start, stop: slices ``start <= z < stop``.
        scores: ``[c, z, y, x]`` float32, softmax over classes.
    """

    start: int
    stop: int
    scores: NDArray[np.float32]


def slices_to_segment(scan: PreparedScan) -> range:
    """Slices that can hold lung: those of the coarse lungs' box with a margin, or all if no lungs were found."""
    depth = scan.array.shape[0]
    lungs = scan.references.get("lungs")
    if lungs is None:
        return range(depth)
    low, high = float(lungs[0][0]), float(lungs[1][0])
    margin = MARGIN * (high - low) + 1
    return range(max(0, int(np.floor(low - margin))), min(depth, int(np.ceil(high + margin)) + 1))


@torch.inference_mode()
def lobe_scores(model: Network, scan: PreparedScan, config: Config, *, device: torch.device) -> Iterator[SlabScores]:
    """Class probabilities slab by slab, over the slices that can hold lung.

    Args:
        model: in evaluation mode, with the ``lobes`` task.
        scan: the prepared scan.
        config: the model's run configuration.
        device: where the model is.
    """
    _, height, width = scan.array.shape
    padded = [-(-side // MULTIPLE) * MULTIPLE for side in (height, width)]
    wanted = slices_to_segment(scan)
    thickness = max(1, SLAB_PIXELS // (padded[0] * padded[1]))
    for start in range(wanted.start, wanted.stop, thickness):
        stop = min(start + thickness, wanted.stop)
        images = _images(scan, config, start, stop, padded).to(device)
        logits = model.segment(images.contiguous(memory_format=torch.channels_last))
        scores = torch.softmax(logits[:, :, :height, :width].float(), dim=1)
        yield SlabScores(start, stop, scores.transpose(0, 1).cpu().numpy())


def _images(scan: PreparedScan, config: Config, start: int, stop: int, padded: list[int]) -> Tensor:
    """``[slices, 1 or 4, H, W]`` windowed slices, padded with air to sides the network takes."""
    _, height, width = scan.array.shape
    grey = torch.from_numpy(apply_window(np.asarray(scan.array[start:stop]), config.window)).unsqueeze(1)
    images = functional.pad(grey, (0, padded[1] - width, 0, padded[0] - height))
    reference = reference_box(scan.references, config.bag) if config.model.position else None
    if reference is None:
        return images
    indices = torch.arange(start, stop)
    return torch.cat([images, slice_position(indices, padded[0], padded[1], reference)], dim=1)


def segment_lobes(model: Network, scan: PreparedScan, config: Config, *, device: torch.device) -> NDArray[np.uint8]:
    """Lobe codes on the *volume's* grid.

    Scores are brought back to the volume's resolution before the class is chosen.

    Returns:
        ``[z, y, x]`` uint8, codes of :mod:`m2unet.anatomy`; 0 outside the segmented slices and outside the body crop.
    """
    mask = np.zeros(scan.volume_shape, dtype=np.uint8)
    for slab in lobe_scores(model, scan, config, device=device):
        mask[slab.start : slab.stop] = scan.restore_scores(slab.scores)
    return mask
