"""Lobes of whole phantom chests with and without following the fissures seen, and how well fissures are seen.

    python benchmarks/fissures.py [--chests 6] [--model RUN] [--spread 1.2] [--json FILE]

Chests that no training saw, 3 mm between slices, with the look of an everyday scan, with any disease and noise, and
healthy ones with little noise, whose fissures are all clear or all invisible: what the lines are worth. Mean lobe Dice
of the network alone, with its atlas, then with random walks up to the fissures seen; area under the ROC curve of
visible fissures against the rest of the lobes. Digital phantoms: engineering evidence, never clinical.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from m2unet.anatomy import LOBE_CODES
from m2unet.ct.window import apply_window
from m2unet.inference.fissure_walk import follow_fissures
from m2unet.inference.predictor import Predictor
from m2unet.inference.whole_chest import ATLAS_WEIGHT, hard_codes, read_slices
from m2unet.models.chest_unet import ChestUNet
from m2unet.phantom.randomised.anatomy import with_fissures
from m2unet.phantom.randomised.disease import DiseaseKnobs
from m2unet.phantom.randomised.pool import SPACING_MM, Chest, draw_chest
from m2unet.phantom.randomised.samples import CALM, FILLED_HU, SHEET, Knobs, dress_slab
from m2unet.phantom.randomised.space import STEP_MM, SpaceKnobs, cut_slab

SEED = 4242
FIGURES = ("lobe_dice_network", "lobe_dice_atlas", "lobe_dice_walked", "fissure_auc")
HEALTHY = replace(
    CALM,
    disease=DiseaseKnobs(opacity_share=0, lobe_share=0, nodule_share=0, reticulation_share=0, effusion_share=0),
    scanner=replace(CALM.scanner, noise_hu=(1.0, 10.0)),
)
assert HEALTHY.tissues is not None
CLEAR = replace(HEALTHY.tissues, no_fissure_share=0.0, fissure=(150, 220), incomplete=(0.0, 0.0))
LOOKS = {
    "everyday": Knobs(calm_share=1.0),
    "any": Knobs(calm_share=0.0),
    "lines clear": Knobs(calm_share=1.0, calm=replace(HEALTHY, tissues=CLEAR)),
    "no lines": Knobs(calm_share=1.0, calm=replace(HEALTHY, tissues=replace(CLEAR, no_fissure_share=1.0))),
}


def whole(chest: Chest, rng: np.random.Generator) -> Any:
    """All of a chest's lungs as one slab, hardly bent."""
    middle = (chest.base + chest.apex) / 2
    slices = int(1.1 * (chest.apex - chest.base))
    ratio = SPACING_MM[0] / STEP_MM
    knobs = SpaceKnobs(
        slices=slices, step=(ratio, ratio), beyond_share=0.0, thick_share=0.0, bend_mm=2.0, tilt_degrees=0.0
    )
    slab = cut_slab(replace(chest, base=middle, apex=middle + 1e-3), rng, knobs)
    levels = np.clip(middle + np.arange(slices) - (slices - 1) / 2, 0, len(chest.hu) - 1)
    slab.height = (2 * (levels - chest.base) / (chest.apex - chest.base) - 1).astype(np.float32)
    return slab


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean Dice of the lobes; one that is neither there nor found, as after its resection, does not count."""
    values = []
    for code in LOBE_CODES:
        said, there = found == code, truth == code
        if said.any() or there.any():
            values.append(2 * np.count_nonzero(said & there) / (np.count_nonzero(said) + np.count_nonzero(there)))
    return float(np.mean(values))


def mean_of_known(values: Sequence[float]) -> float | None:
    """Mean of the finite values; None where there is none, as the AUC where no fissure can be seen."""
    known = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(known)), 4) if known else None


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chests", type=int, default=6)
    parser.add_argument("--model", type=Path, default=None, help="another model [default: the one shipped]")
    parser.add_argument("--spread", type=float, help="how far fissures vary beyond reality [default: as in training]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    assert isinstance(predictor.network, ChestUNet) and predictor.atlas is not None
    found: dict[str, Any] = {"chests": options.chests, "weights_sha256": predictor.identity.weights_sha256}
    anatomy = None if options.spread is None else with_fissures(options.spread)
    chests = [draw_chest(SEED, number, anatomy) for number in range(options.chests)]
    for look, knobs in LOOKS.items():
        rows = []
        for number, chest in enumerate(chests):
            rng = np.random.default_rng([SEED, number])
            slab = dress_slab(whole(chest, rng), rng, knobs)
            images = apply_window(slab.hu, predictor.config.window)
            said = read_slices(
                predictor.network, images, slab.height, images.shape[1:], torch.device("cpu"), neighbour=2
            )
            alone = dice(hard_codes(said.scores), slab.lobes)
            predictor.atlas.apply(said.scores, slab.height, ATLAS_WEIGHT)
            before = dice(hard_codes(said.scores), slab.lobes)
            follow_fissures(said.scores, said.fissures, SPACING_MM[0])
            inside = (slab.lobes > 0) & (slab.lobes < 6)
            seen = ((slab.sheet > SHEET) & (slab.hu < FILLED_HU))[inside]
            auc = roc_auc_score(seen, said.fissures[inside]) if seen.any() else np.nan
            rows.append((alone, before, dice(hard_codes(said.scores), slab.lobes), auc))
        means = [mean_of_known(column) for column in zip(*rows, strict=True)]
        found[look] = dict(zip(FIGURES, means, strict=True))
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
