"""Proposed lobes of a scan, how sure the network is of each pixel, and one figure of doubt for the whole scan.

The doubt of a scan is the mean entropy of the class probabilities, as a share of the greatest possible entropy, over
the voxels within ``BORDER_MM`` of a border of a predicted lobe, in the plane (Shannon entropy as the measure of what an
annotator should see next: Settles 2009, *Active Learning Literature Survey*, Sect. 3.1). Deep inside a lobe and far
outside the lungs every network is sure; averaged over the whole scan, doubt would tell the size of the lungs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES, UNDECIDED
from m2unet.ct.prepare import PreparedScan, prepare_volume
from m2unet.ct.volume import Volume
from m2unet.errors import ModelError
from m2unet.inference.chest_grid import PIXEL_MM
from m2unet.inference.lobes import region_scores, segment_lobes
from m2unet.inference.lung_edge import lobes_on_volume, score_planes
from m2unet.inference.predictor import Predictor
from m2unet.inference.region import whole_plane
from m2unet.inference.whole_chest import ChestScores, check_chest, hard_codes, score_chest
from m2unet.models.chest_unet import ChestUNet

BORDER_MM = 5.0
"""How far from a border a voxel counts as near it."""

CONFIDENT_FROM = 0.9
"""Probability of the winning class from which a pixel counts as confident."""


@dataclass(frozen=True)
class Proposal:
    """What the network proposes for one scan.

    Attributes:
        lobes: ``[z, y, x]`` uint8 lobe codes on the volume's grid.
        confident: the same, :data:`m2unet.anatomy.UNDECIDED` where the network is not sure.
        doubt: mean entropy near the lobes' borders, 0 (sure) to 1; 1 also where no lobe was found.
        sure_share: share of the predicted lobes' voxels that are confident; None where no lobe was found.
    """

    lobes: NDArray[np.uint8] = field(repr=False)
    confident: NDArray[np.uint8] = field(repr=False)
    doubt: float
    sure_share: float | None


def propose_lobes(predictor: Predictor, volume: Volume, *, confident_from: float = CONFIDENT_FROM) -> Proposal:
    """Segment a scan and say how sure the network is.

    Args:
        predictor: the model.
        volume: the scan.
        confident_from: probability of the winning class from which a pixel is confident, 0 to 1.

    Raises:
        ModelError: if the model does not segment lobes.
        QualityError: if the whole-chest network finds no lung.
    """
    if "lobes" not in predictor.network.tasks:
        raise ModelError(
            "The model does not segment lobes", found=predictor.identity.name, mend="choose a model that does"
        )
    if isinstance(predictor.network, ChestUNet):
        return _whole_chest(predictor, predictor.network, volume, confident_from)
    scan = prepare_volume(volume, predictor.config.prepare)
    lobes = segment_lobes(predictor.network, scan, predictor.config, device=predictor.device)
    codes = np.zeros(scan.array.shape, dtype=np.uint8)
    sure = np.ones(scan.array.shape, dtype=bool)
    sums, count = 0.0, 0
    for start, scores in _scores(predictor, scan, lobes):
        here = slice(start, start + scores.shape[1])
        codes[here] = scores.argmax(axis=0)
        sure[here] = scores.max(axis=0) >= confident_from
        near = near_borders(codes[here], scan.spacing_mm)
        sums += float(entropy(scores)[near].sum())
        count += int(near.sum())
    return Proposal(lobes, _confident(scan, codes, sure), sums / count if count else 1.0, _share(codes, sure))


def _whole_chest(predictor: Predictor, network: ChestUNet, volume: Volume, confident_from: float) -> Proposal:
    """By the whole-chest network: doubt on its working grid, sureness of the lobes on the volume's."""
    found = score_chest(network, volume, predictor.config, device=predictor.device, atlas=predictor.atlas)
    check_chest(found, volume.findings)
    lobes = lobes_on_volume(volume, found)
    sure = (lobes == 0) | (confident_from <= 0)  # slices that are not looked at hold background alone
    y0, y1, x0, x1 = found.grid.window
    for z, planes in score_planes(found):
        chosen = np.take_along_axis(planes, lobes[None, z, y0:y1, x0:x1].astype(np.intp), axis=0)[0]
        sure[z, y0:y1, x0:x1] = chosen >= confident_from
    confident = np.where(sure, lobes, np.uint8(UNDECIDED)).astype(np.uint8)
    return Proposal(lobes, confident, _doubt(found), _share(lobes, sure))


def _doubt(found: ChestScores) -> float:
    spacing = (found.grid.step_mm, PIXEL_MM, PIXEL_MM)
    sums, count = 0.0, 0
    for z in range(found.scores.shape[1]):
        scores = found.scores[:, z : z + 1].astype(np.float32)
        near = near_borders(hard_codes(scores), spacing)
        sums += float(entropy(scores / np.maximum(scores.sum(axis=0), 1e-6))[near].sum())
        count += int(near.sum())
    return sums / count if count else 1.0


def _scores(
    predictor: Predictor, scan: PreparedScan, lobes: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First slice and class probabilities ``[c, z, y, x]`` on the prepared grid, for the slices that hold lobes."""
    held = np.flatnonzero(np.isin(lobes, LOBE_CODES).any(axis=(1, 2)))
    if not held.size:
        return
    region = whole_plane(scan, int(held[0]), int(held[-1]) + 1)
    height, width = scan.array.shape[1:]
    for found in region_scores(predictor.network, scan, predictor.config, region, device=predictor.device):
        soft = torch.softmax(found.logits[:, :, :height, :width].float(), dim=1)
        yield found.region.start, soft.transpose(0, 1).cpu().numpy()


def entropy(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of class probabilities as a share of the greatest possible.

    Args:
        scores: ``[c, ...]``, summing to 1 over the classes.

    Returns:
        ``[...]``, 0 to 1.
    """
    found = -(scores * np.log(np.maximum(scores, 1e-12))).sum(axis=0) / np.log(len(scores))
    return np.clip(found, 0.0, 1.0).astype(np.float32)


def near_borders(codes: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels within :data:`BORDER_MM`, in the plane, of a border between a lobe and anything else.

    Args:
        codes: ``[z, y, x]`` lobe codes.
        spacing_mm: ``(z, y, x)``.

    Returns:
        ``[z, y, x]`` bool.
    """
    from scipy.ndimage import distance_transform_edt

    lobe = np.isin(codes, LOBE_CODES)
    border = np.zeros(codes.shape, dtype=bool)
    for axis in (1, 2):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(first), tuple(second)
        differs = (codes[a] != codes[b]) & (lobe[a] | lobe[b])
        border[a] |= differs
        border[b] |= differs
    near = np.zeros(codes.shape, dtype=bool)
    for z in np.flatnonzero(border.any(axis=(1, 2))):
        near[z] = distance_transform_edt(~border[z], sampling=spacing_mm[1:]) <= BORDER_MM
    return near


def _confident(scan: PreparedScan, codes: NDArray[np.uint8], sure: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return scan.restore_mask(np.where(sure, codes, np.uint8(UNDECIDED)).astype(np.uint8))


def _share(codes: NDArray[np.uint8], sure: NDArray[np.bool_]) -> float | None:
    inside = np.isin(codes, LOBE_CODES)
    return float(sure[inside].mean()) if inside.any() else None
