"""Phantom against real geometry: one recipe trained on phantoms' lobe maps and on real ones, both scored on real scans.

    python benchmarks/geometry.py --maps DIR --data DIR --json geometry.json

``--maps`` holds real lobe maps (codes 1-6); ``--data`` real scans as for `benchmarks/real.py`. For the comparison only:
nothing of the package is made from real maps. Both kinds of map are treated alike and lose all that is not a lobe map:
around the lungs the same crude body is invented (muscle, fat, spine, mediastinum, vessels from thresholded noise), and
the same network is trained for the same steps with the same seed. What differs between the two rows is the anatomy of
the lobes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from real import Bench, measure_hand, measure_nlst
from scipy import ndimage

from m2unet.config import load_config
from m2unet.ct.volume import from_source
from m2unet.inference.atlas_file import save_atlas
from m2unet.inference.predictor import Predictor
from m2unet.models.weights import save_model
from m2unet.phantom.randomised.atlas import build_atlas
from m2unet.phantom.randomised.pool import ABOVE, BELOW, SPACING_MM, Chest, ChestPool, draw_chest, write_chest
from m2unet.phantom.smooth import SmoothField
from m2unet.training.invented import Drawing, InventedTraining, train_invented
from m2unet.workflows.run_folder import versions

Lobes = NDArray[np.uint8]
MARGIN_MM = 60.0
"""Room around the lungs in the plane."""


def on_grid(lobes: Lobes, spacing_mm: tuple[float, float, float]) -> Lobes:
    """A lobe map on the pool's grid, nearest neighbours, cut to the lungs with room for a body around them."""
    held = [np.flatnonzero((lobes > 0).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    rooms = [0.0, MARGIN_MM, MARGIN_MM]
    axes = []
    for count, places, step, mm, room in zip(lobes.shape, held, spacing_mm, SPACING_MM, rooms, strict=True):
        low, high = places[0] * step - room, (places[-1] + 1) * step + room
        if mm == SPACING_MM[0]:
            extent = high - low
            low, high = low - BELOW * extent, high + ABOVE * extent
        at = np.floor((np.arange(low + mm / 2, high, mm)) / step).astype(int)
        axes.append(np.where((at >= 0) & (at < count), at, -1))
    padded = np.pad(lobes, 1)
    return padded[np.ix_(*(axis + 1 for axis in axes))]


def body_around(lobes: Lobes, rng: np.random.Generator) -> Chest:
    """A crude chest around a lobe map: HU in the values of the phantom's painter."""
    lung = (lobes > 0) & (lobes < 6)
    slices = np.flatnonzero(lung.any(axis=(1, 2)))
    base, apex = int(slices[0]), int(slices[-1])
    hu = np.full(lobes.shape, -1000, np.float32)
    muscle, fat = rng.uniform(8, 22), rng.uniform(4, 40)
    rows, columns = np.indices(lobes.shape[1:])
    angle = np.arctan2(rows - lobes.shape[1] / 2, columns - lobes.shape[2] / 2).astype(np.float32)
    for z in range(len(lobes)):
        inner = min(max(z, base + (apex - base) // 6), apex - (apex - base) // 8)
        hull = _hull(lung[inner])
        away = ndimage.distance_transform_edt(~hull, sampling=SPACING_MM[1:])
        hu[z][away < muscle + fat] = -102
        hu[z][away < muscle] = 50
        hu[z][hull] = 58 if z < base + (apex - base) // 5 else 42
        _spine(hu[z], hull)
        _ribs(hu[z], away, np.sin(9 * angle + 0.35 * z) > 0.3, muscle)
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in ndimage.find_objects(lung.astype(np.uint8))[0])
    near, gap = np.zeros(lobes.shape, np.float32), np.full(lobes.shape, 25.5, np.float32)
    near[box] = ndimage.distance_transform_edt(lung[box], sampling=SPACING_MM)
    gap[box] = np.minimum(25.5, _fissure_mm(lobes[box], lung[box]))
    vessels = _vessels(lobes.shape, rng)
    hu[lung] = -900 + 942 * vessels[lung] * (near[lung] > 4)
    hu[lobes == 6] = -1000
    maps = [lobes, np.minimum(gap / 0.1, 255).astype(np.uint8), np.minimum(near / 0.25, 255).astype(np.uint8)]
    return Chest(np.rint(hu).astype(np.int16), np.stack(maps), float(base), float(apex))


def _hull(lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows filled from the first to the last voxel of lung, then columns, smoothed."""
    if not lung.any():
        return lung
    filled = np.zeros_like(lung)
    for y in np.flatnonzero(lung.any(axis=1)):
        x = np.flatnonzero(lung[y])
        filled[y, x[0] : x[-1] + 1] = True
    for x in np.flatnonzero(filled.any(axis=0)):
        y = np.flatnonzero(filled[:, x])
        filled[y[0] : y[-1] + 1, x] = True
    return np.asarray(ndimage.gaussian_filter(filled.astype(np.float32), 4) > 0.5) | lung


def _spine(plane: NDArray[np.float32], hull: NDArray[np.bool_]) -> None:
    y, x = np.nonzero(hull)
    if not len(y):
        return
    middle, back = x.mean(), y.max() - 4
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    away = ((rows - back) * SPACING_MM[1]) ** 2 + ((columns - middle) * SPACING_MM[2]) ** 2
    plane[(away < 18**2) & (plane > -500)] = 620
    plane[(away < 15**2) & (plane > -500)] = 190


def _ribs(plane: NDArray[np.float32], away: NDArray[np.float64], along: NDArray[np.bool_], muscle: float) -> None:
    inner = (away > 0.2 * muscle) & (away < 0.75 * muscle) & along
    plane[inner] = 190
    plane[inner & ((away < 0.35 * muscle) | (away > 0.6 * muscle))] = 620


def _fissure_mm(lobes: Lobes, lung: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance from the nearest voxel of another lobe of the same lung."""
    found = np.full(lobes.shape, np.inf, np.float32)
    for code in range(1, 6):
        mine = lobes == code
        others = lung & ~mine & np.isin(lobes, (1, 2, 3) if code < 4 else (4, 5))
        if mine.any() and others.any():
            found[mine] = ndimage.distance_transform_edt(~others, sampling=SPACING_MM)[mine] - 1.0
    return np.maximum(found, 0)


def _vessels(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Strands where two random fields are both near zero."""
    axes = [mm * np.arange(count, dtype=np.float32) for count, mm in zip(shape, SPACING_MM, strict=True)]
    high = tuple(float(axis[-1]) for axis in axes)
    a, b = (SmoothField(rng, (0.0, 0.0, 0.0), high, 9.0).on(*axes) for _ in range(2))  # type: ignore[arg-type]
    return np.asarray(np.exp(-(a**2 + b**2) / 0.06), np.float32)


def real_maps(folder: Path) -> Iterator[Lobes]:
    """Real lobe maps on the pool's grid."""
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        volume = from_source(
            sitk.GetArrayFromImage(image).astype(np.int16),
            image.GetSpacing()[::-1],
            image.GetOrigin(),
            np.reshape(image.GetDirection(), (3, 3)),
        )
        yield on_grid(volume.array.astype(np.uint8), volume.spacing_mm)


def phantom_maps(count: int) -> Iterator[Lobes]:
    """Lobe maps of as many of the recipe's phantoms."""
    for number in range(count):
        yield on_grid(draw_chest(77, number).maps[0], SPACING_MM)


def trained(maps: list[Lobes], folder: Path, steps: int, changes: list[str]) -> Predictor:
    """A network trained on chests around these maps."""
    for number, lobes in enumerate(maps):
        write_chest(folder, number, body_around(lobes, np.random.default_rng([5, number])))
    pool = ChestPool(folder, len(maps))
    config = load_config("synthetic", changes)
    settings = InventedTraining(steps=steps, decay_from=0.5, average=0.99)
    model = train_invented(Drawing(pool), config, settings, folder / "state.pt")
    save_model(model, config, folder / "model")
    save_atlas(build_atlas(pool[number] for number in range(len(pool))), folder / "model")
    return Predictor.load(folder)


def measure(predictor: Predictor, data: Path) -> dict[str, object]:
    """Lung Dice on the NLST scan, lung and lobe Dice on the two slices drawn by hand."""
    bench = Bench(predictor)
    measure_nlst(bench, data)
    measure_hand(bench, data)
    hand = bench.found["hand"]
    return {
        "nlst_lung_dice": bench.found["nlst_lung_dice"],
        "nlst_shares_percent": bench.found["nlst"]["shares_percent"],
        "hand_lung_dice": hand["lung_dice"],
        "hand_lobe_dice": bench.found["hand_lobe_dice"],
        "hand_lobes": hand["lobe_dice"],
    }


def main() -> None:
    """Train twice, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--set", action="append", default=[], help="override a setting of the synthetic preset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    real = list(real_maps(options.maps))
    found: dict[str, object] = {
        "maps": len(real),
        "steps": options.steps,
        "changes": options.set,
        "versions": versions(),
    }
    for name, maps in (("phantom", list(phantom_maps(len(real)))), ("real", real)):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            found[name] = measure(trained(maps, Path(folder), options.steps, options.set), options.data)
            print(name, found[name], f"{time.perf_counter() - started:.0f} s", flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
