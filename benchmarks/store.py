"""Which file holds a prepared scan: time to draw a bag of 200 patches of 128 x 128 from 300 slices of 512 x 512.

Run ``python benchmarks/store.py`` (``pip install m2unet[bench]`` adds Blosc2 and Zarr; what is missing is left out).
Each time includes opening the scan. Warm: the file is in the page cache. Cold: the kernel was asked to drop it first
(``posix_fadvise``; Linux only), and the MiB that then came from the disk are counted (``/proc/self/io``).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2unet.bags.sampling import draw_bag
from m2unet.cohort.store import ScanRecord, Store
from m2unet.config import BagConfig, PrepareConfig

CONFIG = BagConfig(size=200, patch=128)
MIB = 1 << 20


def make_scan(shape: tuple[int, int, int]) -> np.ndarray:
    """A body of smooth tissue with CT-like noise and nothing outside, so that compression meets something like a CT."""
    rng = np.random.default_rng(0)
    _, height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = x**2 + (y / 0.75) ** 2 < 0.9
    lungs = ((np.abs(x) - 0.42) / 0.3) ** 2 + (y / 0.5) ** 2 < 1
    tissue = np.where(lungs, -850, 40)
    scan = np.full(shape, -1024, dtype=np.int16)
    for plane in scan:
        plane[body] = (tissue + rng.normal(0, 25, (height, width)))[body]
    return scan


def draw_sliced(array: Any, seed: int) -> np.ndarray:
    """The same corners as :func:`draw_bag` draws, read by the library's own slicing."""
    depth, height, width = array.shape
    rng, side = np.random.default_rng(seed), CONFIG.patch
    corners = zip(
        np.sort(rng.permutation(depth)[: CONFIG.size]).tolist(),
        rng.integers(0, height - side, CONFIG.size, endpoint=True).tolist(),
        rng.integers(0, width - side, CONFIG.size, endpoint=True).tolist(),
        strict=True,
    )
    return np.stack([np.asarray(array[z, y : y + side, x : x + side]) for z, y, x in corners])


@dataclass(frozen=True)
class Candidate:
    """A way to keep a scan: how to write it into a folder and how to draw a bag from that folder."""

    name: str
    write: Callable[[np.ndarray, Path], None]
    draw: Callable[[Path, int], np.ndarray]


def npy() -> Candidate:
    def write(scan: np.ndarray, folder: Path) -> None:
        record = ScanRecord("", "", scan.shape, (1, 1, 1), {"body": None}, None, (), {}, PrepareConfig())  # type: ignore[arg-type]
        Store.create(folder, PrepareConfig()).write("scan", record, scan, None)

    def draw(folder: Path, seed: int) -> np.ndarray:
        return draw_bag(Store(folder).open("scan"), CONFIG, np.random.default_rng(seed)).patches

    return Candidate("memory-mapped .npy (the store)", write, draw)


def blosc2(codec: str, block: tuple[int, int, int]) -> Candidate:
    library = importlib.import_module("blosc2")
    library.set_nthreads(1)  # as in a loader process

    def write(scan: np.ndarray, folder: Path) -> None:
        parameters = {"codec": getattr(library.Codec, codec), "clevel": 5}
        chunk = (1, *scan.shape[1:])
        library.asarray(scan, urlpath=str(folder / "ct.b2nd"), chunks=chunk, blocks=block, cparams=parameters)

    def draw(folder: Path, seed: int) -> np.ndarray:
        return draw_sliced(library.open(str(folder / "ct.b2nd"), mode="r"), seed)

    return Candidate(f"Blosc2 {codec}, blocks {'x'.join(map(str, block))}", write, draw)


def zarr(chunk: tuple[int, int, int], *, sharded: bool) -> Candidate:
    library = importlib.import_module("zarr")

    def write(scan: np.ndarray, folder: Path) -> None:
        shards = scan.shape if sharded else None
        library.create_array(folder / "ct.zarr", data=scan, chunks=chunk, shards=shards)

    def draw(folder: Path, seed: int) -> np.ndarray:
        return draw_sliced(library.open_array(folder / "ct.zarr", mode="r"), seed)

    size = "x".join(map(str, chunk))
    return Candidate(f"Zarr, chunks {size}{', one shard' if sharded else ''}", write, draw)


def candidates() -> list[Candidate]:
    """Those whose library is installed."""
    found = [npy()]
    for make in (
        lambda: blosc2("LZ4", (1, 64, 64)),
        lambda: blosc2("ZSTD", (1, 64, 64)),
        lambda: zarr((1, 128, 128), sharded=False),
        lambda: zarr((1, 128, 128), sharded=True),
    ):
        try:
            found.append(make())
        except ImportError as error:
            print(f"left out: {error}")
    return found


def drop(folder: Path) -> None:
    """Ask the kernel to forget a folder's files."""
    gc.collect()  # a file that is still mapped stays in the cache
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def disk_mib() -> float:
    """MiB this process has made the disk read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1]) / MIB


def timed(draw: Callable[[Path, int], np.ndarray], folder: Path, seed: int) -> float:
    """Milliseconds of one bag."""
    start = time.perf_counter()
    draw(folder, seed)
    return 1000 * (time.perf_counter() - start)


def measure(candidate: Candidate, scan: np.ndarray, folder: Path, repeats: int) -> str:
    """One row of the table."""
    start = time.perf_counter()
    candidate.write(scan, folder)
    written = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB
    candidate.draw(folder, 0)
    warm = [timed(candidate.draw, folder, seed) for seed in range(repeats)]
    cold, read = "-", "-"
    if hasattr(os, "posix_fadvise") and Path("/proc/self/io").exists():
        times, before = [], disk_mib()
        rounds = max(3, repeats // 4)
        for seed in range(rounds):
            drop(folder)
            times.append(timed(candidate.draw, folder, seed))
        cold, read = f"{statistics.median(times):.0f}", f"{(disk_mib() - before) / rounds:.0f}"
    return (
        f"| {candidate.name} | {statistics.median(warm):.1f} | {max(warm):.1f} | {cold} | {read} | {size:.0f} "
        f"| {written:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to measure; a temporary one if not given"
    )
    arguments = parser.parse_args()
    scan = make_scan(tuple(arguments.shape))
    versions = [f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    for name in ("blosc2", "zarr"):
        try:
            versions.append(f"{name} {importlib.import_module(name).__version__}")
        except ImportError:
            continue
    print(f"{platform.system()}, {os.cpu_count()} cores; {', '.join(versions)}\n")
    print("| format | warm, median ms | warm, worst ms | cold, median ms | from disk, MiB | size, MiB | writing, s |")
    print("|---|---|---|---|---|---|---|")
    for candidate in candidates():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            print(measure(candidate, scan, Path(folder), arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
