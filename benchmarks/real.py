"""The lobe model that ships with the package, measured on real CTs.

    python benchmarks/real.py --data DIR --json real.json --pictures docs/images

DIR holds ``nlst-ct-dicom/`` (a whole chest CT as DICOM), ``cip/ct-64.nrrd`` (64 x 64 x 79) and
``cip/crop_ct_2slices.nii.gz`` with ``cip/crop_lobes_2slices_1to5.nii.gz`` (two slices with lobes drawn by hand).

Two slices cannot tell where in the chest they lie, so their height is fitted: the best of a row of heights counts, and
the figure without fitting stands beside it. Neither can they tell which of the two regions in front of the right major
fissure is the middle lobe, so the figure with the two names exchanged is there too, apart; it is not the one that
counts. The classical segmentation of the NLST scan: air inside the body below -400 HU, trachea and large bronchi
removed by region growing from the uppermost slice, holes filled slice by slice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.anatomy import AIRWAY, LEFT_CODES, LOBE_BY_CODE, LOBE_CODES, RIGHT_CODES
from m2unet.ct.body import find_body
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.inference.lung_edge import lobes_on_volume
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.inference.whole_chest import score_chest

Mask = NDArray[np.uint8]

# Percent of lung volume: mean +- 3 standard deviations of 51 lobe maps (docs/phantom-anatomy.md).
SHARES = {"RUL": (8, 33), "RML": (2, 17), "RLL": (10, 38), "LUL": (14, 35), "LLL": (11, 33)}
UPPER, MIDDLE = RIGHT_CODES[:2]
HEIGHTS = np.round(np.arange(-0.9, 0.91, 0.05), 2)
STEPS = (
    "network on 3 x 2 x 2 mm in two passes, the second with the fitted height of every slice",
    "the lobes of each side weighed by the atlas",
    "lobes of each lung spread up to the fissures seen",
    "scores interpolated linearly to the scan's grid",
    "lungs' edge from the scan (-400 HU) where the lung beside it holds air",
    "the central airway made whole, slice by slice",
    "islands reassigned or removed, holes filled",
)


@dataclass
class Bench:
    """The model, and what was measured so far."""

    predictor: Predictor
    found: dict[str, Any] = field(default_factory=dict)

    def lobes(self, volume: Volume) -> Mask:
        """Lobes of a volume, tidied as `m2unet predict` does."""
        prediction = self.predictor.predict(volume)
        assert prediction.lobes is not None
        return postprocess_lobes(prediction.lobes, volume.voxel_ml).mask


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def union(mask: Mask) -> NDArray[np.bool_]:
    """All five lobes."""
    return (mask > 0) & (mask < 6)


def lobe_dice(a: Mask, b: Mask) -> dict[str, float]:
    """Dice of each lobe."""
    return {LOBE_BY_CODE[c].abbreviation: dice(a == c, b == c) for c in LOBE_CODES}


def classical_lungs(volume: Volume) -> NDArray[np.bool_]:
    """Threshold segmentation of air-filled lungs, airway removed."""
    body = find_body(volume.array, volume.spacing_mm, -500)
    assert body is not None
    air = body.mask & (volume.array < -400)
    lungs = _large(air, volume.voxel_ml, 100) & ~_airway(volume, air)
    lungs = _large(lungs, volume.voxel_ml, 100)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in lungs]) & ~_airway(volume, air)


def _large(mask: NDArray[np.bool_], voxel_ml: float, least_ml: float) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel()) * voxel_ml
    sizes[0] = 0
    return np.isin(labels, np.flatnonzero(sizes > least_ml))


def _airway(volume: Volume, air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Trachea and large bronchi: grown from the uppermost slice at the highest threshold that does not leak."""
    smooth = ndimage.gaussian_filter(volume.array.astype(np.float32), (0.5, 1, 1))
    seed = _trachea(volume, air)
    grown = np.zeros(volume.shape, bool)
    if seed is None:
        return grown
    image = sitk.GetImageFromArray(smooth)
    for threshold in range(-980, -840, 5):
        found = sitk.GetArrayFromImage(sitk.ConnectedThreshold(image, [seed[::-1]], -3000, threshold)) > 0
        if found.sum() * volume.voxel_ml > 150:
            break
        grown = found
    return ndimage.binary_dilation(grown, iterations=2)


def _trachea(volume: Volume, air: NDArray[np.bool_]) -> tuple[int, int, int] | None:
    cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100
    middle = volume.shape[2] / 2
    for z in range(volume.shape[0] - 1, volume.shape[0] // 2, -1):
        labels, count = ndimage.label(air[z])
        for number in range(1, count + 1):
            here = labels == number
            y, x = ndimage.center_of_mass(here)
            if 0.8 < here.sum() * cm2 < 7 and abs(x - middle) * volume.spacing_mm[2] < 45:
                return z, int(y), int(x)
    return None


def sides_ok(mask: Mask) -> bool:
    """Whether right lobes lie on the patient's right (lower x) of the left ones, almost wholly."""
    x = np.arange(mask.shape[2])[None, None] * np.ones(mask.shape, np.float32)
    right, left = np.isin(mask, RIGHT_CODES), np.isin(mask, LEFT_CODES)
    if not right.any() or not left.any():
        return False
    border = (np.median(x[right]) + np.median(x[left])) / 2
    return bool(np.mean(x[right] < border) > 0.98 and np.mean(x[left] > border) > 0.98)


def shares(mask: Mask) -> dict[str, float]:
    """Percent of the lungs by lobe."""
    total = max(int(union(mask).sum()), 1)
    return {LOBE_BY_CODE[c].abbreviation: round(100 * int((mask == c).sum()) / total, 1) for c in LOBE_CODES}


def plausible(mask: Mask) -> bool:
    """Whether every lobe's share is anatomical."""
    found = shares(mask)
    return all(low <= found[name] <= high for name, (low, high) in SHARES.items())


def measure_nlst(bench: Bench, data: Path) -> tuple[Volume, Mask]:
    """Lungs against the classical segmentation, shares, sides."""
    volume = read_scan(data / "nlst-ct-dicom")
    started = time.perf_counter()
    mask = bench.lobes(volume)
    seconds = time.perf_counter() - started
    bench.found["nlst_lung_dice"] = dice(union(mask), classical_lungs(volume))
    bench.found["nlst"] = {
        "shares_percent": shares(mask),
        "shares_anatomical": plausible(mask),
        "left_right_ok": sides_ok(mask),
        "lung_ml": round(float(union(mask).sum() * volume.voxel_ml), 1),
        "seconds": round(seconds, 1),
    }
    return volume, mask


def measure_hand(bench: Bench, data: Path) -> tuple[Volume, Mask, Mask]:
    """The two slices drawn by hand, their height fitted; returns the mask without fitting, and what was drawn."""
    volume = read_scan(data / "cip" / "crop_ct_2slices.nii.gz")
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "cip" / "crop_lobes_2slices_1to5.nii.gz")))
    axes = tuple(axis for axis, flip in enumerate(volume.source.flips) if flip)
    truth = np.flip(drawn.transpose(volume.source.permutation), axes).astype(np.uint8)
    best: tuple[float, float, Mask] | None = None
    count = len(score_chest(bench.predictor.network, volume, bench.predictor.config).grid.hu)  # type: ignore[arg-type]
    for height in HEIGHTS:
        found = score_chest(
            bench.predictor.network,  # type: ignore[arg-type]
            volume,
            bench.predictor.config,
            heights=[float(height)] * count,
            atlas=bench.predictor.atlas,
        )
        mask = postprocess_lobes(lobes_on_volume(volume, found), volume.voxel_ml).mask
        score = float(np.nanmean(list(lobe_dice(mask, truth).values())))
        if best is None or score > best[0]:
            best = score, float(height), mask
    assert best is not None
    alone = bench.lobes(volume)
    exchanged = names_exchanged(alone)
    bench.found["hand_lobe_dice"] = best[0]
    bench.found["hand"] = {
        "height_fitted": best[1],
        "note": "two slices cannot tell their height in the chest: the best of a row of heights counts",
        "lobe_dice": lobe_dice(best[2], truth),
        "lung_dice": dice(union(best[2]), truth > 0),
        "without_fitting": {"lobe_dice": lobe_dice(alone, truth)},
        "without_fitting_mean": float(np.nanmean(list(lobe_dice(alone, truth).values()))),
        "names_exchanged": {"lobe_dice": lobe_dice(exchanged, truth)},
        "names_exchanged_mean": float(np.nanmean(list(lobe_dice(exchanged, truth).values()))),
    }
    return volume, alone, truth


def names_exchanged(mask: Mask) -> Mask:
    """Right upper and middle lobe under each other's name."""
    codes = np.arange(AIRWAY + 1, dtype=np.uint8)
    codes[[UPPER, MIDDLE]] = MIDDLE, UPPER
    return codes[mask]


def measure_small(bench: Bench, data: Path) -> tuple[Volume, Mask]:
    """The 64 x 64 x 79 scan."""
    volume = read_scan(data / "cip" / "ct-64.nrrd")
    mask = bench.lobes(volume)
    bench.found["ct64"] = {
        "shares_percent": shares(mask),
        "shares_anatomical": plausible(mask),
        "left_right_ok": sides_ok(mask),
        "lung_ml": round(float(union(mask).sum() * volume.voxel_ml), 1),
    }
    return volume, mask


def measure_perturbed(bench: Bench, volume: Volume, mask: Mask) -> None:
    """Mean lobe Dice against the undisturbed result."""
    found: dict[str, float] = {}
    sides = []
    for name, image in _stored_otherwise(volume).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.nrrd"
            sitk.WriteImage(image, str(path))
            again = read_scan(path)
        same = np.array_equal(again.array, volume.array)
        # the same voxels give the same lobes: there is no chance in the path
        other = mask if same else bench.lobes(again)
        found[name] = float(np.nanmean(list(lobe_dice(other, mask).values())))
        sides.append(sides_ok(other))
    for step in (1.0, 5.0, 8.0):
        resampled, back = _through(volume, step)
        other = bench.lobes(resampled)
        sides.append(sides_ok(other))
        found[f"slices of {step:g} mm"] = float(np.nanmean(list(lobe_dice(other[back], mask).values())))
    for noise in (30, 60):
        rng = np.random.default_rng(noise)
        noisy = volume.array + np.rint(rng.normal(0, noise, volume.shape)).astype(np.int16)
        other = bench.lobes(_like(volume, np.clip(noisy, -1024, 3071).astype(np.int16)))
        sides.append(sides_ok(other))
        found[f"noise of {noise} HU"] = float(np.nanmean(list(lobe_dice(other, mask).values())))
    bench.found["perturbed"] = found
    bench.found["worst_perturbed_dice"] = min(found.values())
    bench.found["perturbed_left_right_ok"] = all(sides)


def _image(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def _stored_otherwise(volume: Volume) -> dict[str, sitk.Image]:
    image = _image(volume)
    stored = {f"flip {axis}": sitk.Flip(image, [axis == name for name in "xyz"], False) for axis in "xyz"}
    stored |= {
        "rotated 90 degrees, xy": sitk.Flip(sitk.PermuteAxes(image, [1, 0, 2]), [True, False, False], False),
        "rotated 90 degrees, xz": sitk.Flip(sitk.PermuteAxes(image, [2, 1, 0]), [False, False, True], False),
        "rotated 90 degrees, yz": sitk.Flip(sitk.PermuteAxes(image, [0, 2, 1]), [False, True, False], False),
    }
    return stored


def _through(volume: Volume, step: float) -> tuple[Volume, NDArray[np.int64]]:
    """The volume with slices of another thickness (averages, or interpolated), and its slice for each of the old."""
    from m2unet.ct.resample import area_weights

    scale = step / volume.spacing_mm[0]
    count = max(2, int(len(volume.array) / scale))
    weights = area_weights(len(volume.array), count, scale)
    flat = volume.array.reshape(len(volume.array), -1).astype(np.float32)
    array = np.rint(weights @ flat).astype(np.int16).reshape(count, *volume.shape[1:])
    back = np.minimum(((np.arange(len(volume.array)) + 0.5) / scale).astype(int), count - 1)
    return _like(volume, array, (step, *volume.spacing_mm[1:])), back


def _like(volume: Volume, array: NDArray[np.int16], spacing: tuple[float, float, float] | None = None) -> Volume:
    from m2unet.ct.volume import from_source

    return from_source(array, spacing or volume.spacing_mm, volume.origin_mm, volume.direction)


def draw(path: Path, volume: Volume, masks: list[tuple[str, Mask | None]], slices: list[int]) -> None:
    """Slices, a row a mask."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    colours = [(0, 0, 0, 0)] + [(*(v / 255 for v in LOBE_BY_CODE[c].colour), 0.45) for c in LOBE_CODES]
    colours.append((0.6, 0.6, 0.6, 0.5))
    figure, axes = plt.subplots(len(masks), len(slices), figsize=(3 * len(slices), 2.7 * len(masks)), squeeze=False)
    for row, (title, mask) in zip(axes, masks, strict=True):
        for axis, z in zip(row, slices, strict=True):
            axis.imshow(volume.array[z], cmap="gray", vmin=-1350, vmax=250)
            if mask is not None:
                axis.imshow(mask[z], cmap=ListedColormap(colours), vmin=0, vmax=6, interpolation="nearest")
            axis.axis("off")
        row[0].set_title(title, loc="left", fontsize=10)
    figure.tight_layout(pad=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def draw_borders(path: Path, volume: Volume, masks: list[tuple[str, Mask | None]], z: int) -> None:
    """The right lung of one slice in a window that shows fissures, the borders of a mask drawn over it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    middle = volume.shape[2] * 9 // 16
    figure, axes = plt.subplots(1, len(masks), figsize=(4.4 * len(masks), 5.8))
    for axis, (title, mask) in zip(axes, masks, strict=True):
        axis.imshow(volume.array[z, :, :middle], cmap="gray", vmin=-1000, vmax=-500)
        if mask is not None:
            axis.contour(mask[z, :, :middle], levels=np.arange(0.5, 6), colors="red", linewidths=1)
        axis.set_title(title, loc="left", fontsize=10)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None, help="another model [default: the one shipped]")
    parser.add_argument("--pictures", type=Path, default=None)
    parser.add_argument("--skip-perturbed", action="store_true", help="leave out the perturbations (half the time)")
    arguments = parser.parse_args()
    bench = Bench(Predictor.load(arguments.model))
    nlst, lobes = measure_nlst(bench, arguments.data)
    hand, found_lobes, truth = measure_hand(bench, arguments.data)
    small, small_lobes = measure_small(bench, arguments.data)
    if arguments.pictures:
        picks = [int(len(nlst.array) * share) for share in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)]
        draw(arguments.pictures / "real-nlst.png", nlst, [("NLST", None), ("lobes", lobes)], picks)
        rows = [("CT", None), ("found", found_lobes), ("by hand", truth)]
        draw(arguments.pictures / "real-hand.png", hand, rows, [0, 1])
        draw_borders(arguments.pictures / "real-hand-borders.png", hand, rows, 0)
        few = [int(len(small.array) * share) for share in (0.2, 0.35, 0.5, 0.65, 0.8)]
        draw(arguments.pictures / "real-ct64.png", small, [("64 x 64 x 79", None), ("lobes", small_lobes)], few)
    found = bench.found
    if arguments.skip_perturbed:
        found |= {"worst_perturbed_dice": None, "worst_perturbed_reason": "left out by --skip-perturbed"}
    else:
        measure_perturbed(bench, nlst, lobes)
    sides = [found["nlst"]["left_right_ok"], found["ct64"]["left_right_ok"], found.get("perturbed_left_right_ok", True)]
    found["left_right_ok"] = all(sides)
    found |= {"steps": STEPS, "weights_sha256": bench.predictor.identity.weights_sha256}
    arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
