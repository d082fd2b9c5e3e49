"""Trains the tiny cohort in its own process: ``python -m tests.training.worker FOLDER [settings ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from m2unet.bags.dataset import BagDataset
from m2unet.config import load_config
from m2unet.models.registry import build_model
from m2unet.training.distributed import joined_world
from m2unet.training.fit import Fit
from tests.training.conftest import SMALL, TinyStore


def main() -> None:
    """Train, resuming if there is a state, and save the weights of process 0."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    config = load_config("paper", [*SMALL, *sys.argv[2:]])
    store = TinyStore(scans=10, masked=3)
    torch.manual_seed(config.seed)
    model = build_model(config.model)
    ids = tuple(store.scans)
    with joined_world("cpu") as world:
        fit = Fit(model, lambda e: BagDataset(store, ids, config.bag, seed=0, epoch=e), config, folder, world)
        state = fit.run(resume=True)
        if world.main:
            torch.save({"model": fit.model.state_dict(), "history": state.history}, folder / "final.pt")


if __name__ == "__main__":
    main()
