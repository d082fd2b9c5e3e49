"""Bags a second from the store to the training loop: cold and warm, with 1 and 2 loader processes.

    python benchmarks/data_path.py [--scans 6] [--bags 24] [--json FILE]

Scans of 200 slices of 384 x 448 (a body crop), noise throughout; one in four has lobes. A bag is 200 patches of
128 x 128, windowed and stacked as the training loop takes it. Cold: the kernel was asked to drop the files first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from m2unet.bags.dataset import BagDataset
from m2unet.config import load_config
from m2unet.training.fit import BatchMaker

SHAPE = (200, 384, 448)


class PlainStore:
    """Memory-mapped arrays as the store holds them, without its bookkeeping."""

    def __init__(self, folder: Path, scans: int) -> None:
        self.folder, self.ids = folder, [f"s{number}" for number in range(scans)]
        rng = np.random.default_rng(0)
        noise = rng.integers(-1024, 400, SHAPE, dtype=np.int16)
        for number, name in enumerate(self.ids):
            np.save(folder / f"{name}.npy", np.roll(noise, number, axis=0))
            if number % 4 == 0:
                np.save(folder / f"{name}_lobes.npy", (noise > 0).astype(np.uint8))

    def open(self, scan_id: str) -> Any:
        """Map one scan."""
        return _Scan(self.folder, scan_id)

    def drop(self) -> None:
        """Ask the kernel to forget the files."""
        for path in self.folder.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class _Scan:
    def __init__(self, folder: Path, scan_id: str) -> None:
        self.scan_id, self.severity = scan_id, 1
        self.array = np.load(folder / f"{scan_id}.npy", mmap_mode="r")
        lobes = folder / f"{scan_id}_lobes.npy"
        self.lobes = np.load(lobes, mmap_mode="r") if lobes.is_file() else None
        self.references = {"body": np.array([[0, 0, 0], SHAPE], dtype=np.float32), "lungs": None}


def measure(store: PlainStore, bags: int, workers: int, *, cold: bool) -> dict[str, object]:
    """Draw bags one after the other and say how many a second."""
    config = load_config("paper")
    ids = [store.ids[i % len(store.ids)] for i in range(bags)]
    if cold:
        store.drop()
    else:
        for name in store.ids:
            np.asarray(store.open(name).array).max()
    loader = DataLoader(
        BagDataset(store, ids, config.bag, seed=0),
        batch_size=1,
        collate_fn=BatchMaker(config),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    iterator = iter(loader)
    next(iterator)  # starting the processes is paid once an epoch
    started = time.perf_counter()
    count = sum(1 for _ in iterator)
    seconds = time.perf_counter() - started

    return {"workers": workers, "cold": cold, "bags_per_second": round(count / seconds, 2)}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=6)
    parser.add_argument("--bags", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = PlainStore(Path(folder), options.scans)
        for cold in (True, False):
            rows += [measure(store, options.bags, workers, cold=cold) for workers in (0, 1, 2)]
    found = json.dumps({"rows": rows, "load": os.getloadavg()[0], "python": platform.python_version()})
    print(found)
    if options.json:
        options.json.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
