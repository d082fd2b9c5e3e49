"""The mean of the weights of several trainings of one network that began with the same weights.

    python benchmarks/average_weights.py --out MODEL FIRST [SECOND ...]

FIRST is a model's folder; its card and atlas are kept. The others are models' folders, or the ``state.pt`` of a run on
invented images, whose running average counts. Such a mean is often more robust than either (Izmailov et al.,
"Averaging weights leads to wider optima and better generalization", UAI 2018).
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from m2unet.inference.atlas_file import load_atlas, save_atlas
from m2unet.models.weights import load_model, read_weights, save_model


def weights_of(path: Path) -> dict[str, Tensor]:
    """Weights of a model's folder, or the running average of a run's state."""
    if path.is_dir():
        return read_weights(path).tensors
    average: dict[str, Tensor] = torch.load(path, weights_only=True)["average"]
    return average


def mean_of(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor; counters are those of the first."""
    return {
        name: torch.stack([each[name] for each in weights]).mean(0) if value.is_floating_point() else value
        for name, value in weights[0].items()
    }


def main() -> None:
    """Average and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    first = load_model(options.models[0])
    every = [weights_of(path) for path in options.models]
    first.model.load_state_dict(mean_of(every))
    kept = ("trained_on", "initial_weights_sha256", "training", "validation", "versions")
    extra = {name: first.card[name] for name in kept if name in first.card}
    extra["mean_of_weights"] = [_identity(path) for path in options.models]
    if (extra.pop("validation", None)) is not None:  # those figures were the first model's alone
        extra["validation_of_the_first"] = first.card["validation"]
    options.out.mkdir(parents=True, exist_ok=True)
    atlas = load_atlas(options.models[0])
    if atlas is not None:
        save_atlas(atlas, options.out)
    save_model(first.model, first.config, options.out, extra)


def _identity(path: Path) -> str:
    if path.is_dir():
        return f"model {read_weights(path).sha256}"
    state = torch.load(path, weights_only=True)
    digest = hashlib.sha256()
    for name in sorted(state["average"]):
        digest.update(state["average"][name].contiguous().numpy().tobytes())
    return f"running average at step {state['step']}, sha256 {digest.hexdigest()}"


if __name__ == "__main__":
    main()
