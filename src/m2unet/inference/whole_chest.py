"""Lobes of a whole scan by the whole-chest network, in two passes: first where each slice lies, then the lobes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from m2unet.config import Config
from m2unet.ct.findings import Finding, QualityError, finding
from m2unet.ct.quality import SMALL_MM
from m2unet.ct.volume import Volume
from m2unet.ct.window import apply_window
from m2unet.inference.chest_grid import PIXEL_MM, ChestGrid, to_chest_grid
from m2unet.inference.chest_height import HeightFit, fit_heights
from m2unet.inference.fissure_walk import WalkConfig, follow_fissures
from m2unet.models.chest_unet import ChestUNet, height_channel
from m2unet.models.lobe_atlas import LobeAtlas

FloatArray = NDArray[np.float32]

BATCH = 8
LEAST_ML, LEAST_OF_MM = 250.0, 100.0
"""Less lung than the first, in a scan at least 10 cm high, is no chest; in a lower one less in proportion."""
MOST_ERROR = 0.25
"""Mean deviation of the slices' heights, by half the lungs' height, above which the scan may be no chest."""
AIR_HU = -1000
AIRWAY = 6
ATLAS_WEIGHT = 1.0
"""Exponent of the atlas beside the network's scores: both count alike."""


@dataclass(frozen=True)
class ChestScores:
    """What the network says of a scan on the working grid.

    Attributes:
        grid: the working grid.
        scores: ``[7, z, y, x]`` float16 class probabilities.
        height: where the slices lie; None where no lung was found.
    """

    grid: ChestGrid
    scores: NDArray[np.float16]
    height: HeightFit | None

    @property
    def lung_ml(self) -> float:
        """Volume of all lobes on the working grid."""
        return float((hard_codes(self.scores) % AIRWAY > 0).sum() * self.grid.voxel_ml)


def score_chest(
    model: ChestUNet,
    volume: Volume,
    config: Config,
    *,
    device: torch.device | None = None,
    heights: Sequence[float] | None = None,
    atlas: LobeAtlas | None = None,
    walk: WalkConfig | None = None,
) -> ChestScores:
    """Run the network over a scan.

    Args:
        model: in evaluation mode.
        volume: the scan.
        config: of the model.
        device: where the model is.
        heights: of the working slices, to override what the network finds.
        atlas: weighs the lobes where the network leaves them open.
        walk: how lobes spread up to the fissures seen; the defaults if None.
    """
    grid = to_chest_grid(volume)
    images = apply_window(_padded(grid.hu, model.stride), config.window)
    device = device or torch.device("cpu")
    count = len(images)
    size = grid.hu.shape[1:]
    unknown = np.full(count, np.nan, np.float32)
    fit = None
    if heights is None:
        first = read_slices(model, images, unknown, size, device, neighbour=grid.neighbour)
        fit = fit_heights(first.place, _lung_cm2(first.scores), grid.step_mm)
        if fit is None:
            return ChestScores(grid, first.scores, None)
        given = fit.heights
    else:
        given = np.asarray(heights, np.float32)
    found = read_slices(model, images, given, size, device, neighbour=grid.neighbour)
    if atlas is not None:
        atlas.apply(found.scores, given, ATLAS_WEIGHT)
    follow_fissures(found.scores, found.fissures, grid.step_mm, walk)
    return ChestScores(grid, found.scores, fit)


def hard_codes(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Codes from class probabilities ``[7, ...]``: first whether it is lung at all, then which lobe.

    The greatest single class would call lung background where the network doubts between two lobes.
    """
    lung = scores[1:AIRWAY].sum(axis=0, dtype=np.float32)
    lobe = scores[1:AIRWAY].argmax(axis=0).astype(np.uint8) + np.uint8(1)
    other = np.where(scores[AIRWAY] > scores[0], np.uint8(AIRWAY), np.uint8(0))
    return np.where(lung > np.maximum(scores[0], scores[AIRWAY]), lobe, other)


def _lung_cm2(scores: NDArray[np.float16]) -> FloatArray:
    """Area of lung in each slice, small pieces (bowel gas taken for lung) left out."""
    labels, _ = ndimage.label(hard_codes(scores) % AIRWAY > 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.isin(labels, np.flatnonzero(sizes >= max(0.1 * sizes.max(), 1)))
    return (kept.sum(axis=(1, 2)) * (PIXEL_MM**2 / 100)).astype(np.float32)


def check_chest(found: ChestScores, known: tuple[Finding, ...], accept: Collection[str] = ()) -> tuple[Finding, ...]:
    """Findings about a scan that does not look like a chest.

    Args:
        found: the network's scores.
        known: findings of the reading.
        accept: codes of errors that count as warnings.

    Raises:
        QualityError: the network finds next to no lung in a scan more than 4 cm high, and that is not accepted.
    """
    extent = len(found.grid.hu) * found.grid.step_mm
    if found.height is None or found.lung_ml < LEAST_ML * min(1.0, extent / LEAST_OF_MM):
        lenient = extent <= SMALL_MM or "lungs-absent" in accept
        absent = finding("lungs-absent", f"{found.lung_ml:.0f} ml by the network", "warning" if lenient else "error")
        if not lenient:
            raise QualityError((*known, absent))
        return (absent,)
    if found.height.error > MOST_ERROR:
        return (finding("chest-uncertain", f"slices deviate by {50 * found.height.error:.0f} % of the lungs' height"),)
    return ()


@dataclass(frozen=True)
class SliceAnswers:
    """What the network says of consecutive working slices.

    Attributes:
        scores: ``[7, z, y, x]`` class probabilities.
        fissures: ``[z, y, x]`` probability of a visible fissure.
        place: ``[z, 2]`` height and log of its uncertainty.
    """

    scores: NDArray[np.float16]
    fissures: NDArray[np.float16]
    place: FloatArray


@torch.inference_mode()
def read_slices(
    model: ChestUNet,
    images: FloatArray,
    heights: FloatArray,
    size: tuple[int, ...],
    device: torch.device,
    *,
    neighbour: int,
) -> SliceAnswers:
    """Run the network over slices on the working grid.

    Args:
        model: in evaluation mode.
        images: ``[z, y, x]`` scaled slices; y and x are multiples of the network's stride.
        heights: ``[z]``, NaN where not known.
        size: rows and columns of the answer.
        device: where the model is.
        neighbour: slices from one to its next channel.
    """
    count, context = len(images), model.config.context
    offsets = neighbour * np.arange(-context, context + 1)
    scores = np.empty((model.config.classes, count, *size), np.float16)
    fissures = np.empty((count, *size), np.float16)
    place = np.empty((count, 2), np.float32)
    for start in range(0, count, BATCH):
        at = np.arange(start, min(start + BATCH, count))
        stack = torch.from_numpy(images[np.clip(at[:, None] + offsets, 0, count - 1)]).to(device)
        given = torch.from_numpy(heights[at]).to(device)
        batch = height_channel(stack, given).contiguous(memory_format=torch.channels_last)
        answer = model.read(batch)
        scores[:, at] = _scores(answer.lobes, size)
        fissures[at] = answer.fissures[:, 0, : size[0], : size[1]].float().sigmoid().cpu().numpy()
        place[at] = answer.place.float().cpu().numpy()
    return SliceAnswers(scores, fissures, place)


def _scores(logits: Tensor, size: tuple[int, ...]) -> NDArray[np.float16]:
    cut = logits[:, :, : size[0], : size[1]].float().softmax(1)
    return cut.transpose(0, 1).half().cpu().numpy()


def _padded(hu: FloatArray, stride: int) -> FloatArray:
    _, height, width = hu.shape
    return np.pad(hu, ((0, 0), (0, -height % stride), (0, -width % stride)), constant_values=AIR_HU)
