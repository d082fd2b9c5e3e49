"""Set the phantoms' lobe geometry beside that of real lobe maps, and a phantom's HU and looks beside a real scan's.

    python benchmarks/phantom_fit.py --maps DIR --phantoms 51 --out fit.md
    python benchmarks/phantom_fit.py --series DICOM_DIR --picture docs/images/phantom-vs-real.png

DIR holds NIfTI maps with codes 1-5 (RUL RML RLL LUL LLL) and 6 (airway). Only means and spreads are written.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from m2unet.phantom.anatomy import Anatomy, AnatomyParameters, Grid, draw_anatomy
from m2unet.phantom.measure import measure_lobes

SPACING_MM = (5.0, 2.75, 2.75)


def real_measures(folder: Path) -> list[dict[str, float]]:
    """Measures of every map in a folder."""
    import SimpleITK as sitk

    found = []
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        z, y, x = image.GetSpacing()[::-1]
        found.append(measure_lobes(sitk.GetArrayFromImage(image), (z, y, x)))
    return found


def phantom_measures(count: int, seed: int) -> list[dict[str, float]]:
    """Measures of drawn phantoms at the maps' resolution."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        anatomy = Anatomy(draw_anatomy(rng))
        low, high = anatomy.lung_extent_mm
        lower = (low[0] - 10, low[1] - 10, low[2] - 10)
        upper = (high[0] + 10, high[1] + 10, high[2] + 10)
        tissues = anatomy.render(Grid.around(lower, upper, SPACING_MM), vessels=False)
        found.append(measure_lobes(tissues.lobes, SPACING_MM))
    return found


def table(phantom: list[dict[str, float]], real: list[dict[str, float]]) -> str:
    """A Markdown table, one measure a line: mean and standard deviation of both."""
    lines = [f"| measure | phantom (n = {len(phantom)}) | real (n = {len(real)}) |", "|---|---|---|"]
    for name in real[0]:
        cells = []
        for rows in (phantom, real):
            values = np.array([row[name] for row in rows])
            digits = 0 if name.endswith(("_ml", "height_mm", "width_mm", "depth_mm")) else 1
            digits = digits if np.nanmean(np.abs(values)) > 3 else 3
            cells.append(f"{np.nanmean(values):.{digits}f} ± {np.nanstd(values):.{digits}f}")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def like_the_series() -> AnatomyParameters:
    """A drawn woman with the NLST scan's lung height, width, depth and lung density."""
    drawn = draw_anatomy(np.random.default_rng(11), sex="F", arms_up=True)
    return replace(
        drawn,
        lung_height_mm=236,
        half_width_mm=126,
        half_depth_mm=92,
        fat_mm=17,
        lung_hu=-943,
        gravity_hu_per_mm=0.01,
        dome_right=0.27,
        dome_left=0.22,
        heart_width=0.37,
        taper=-0.05,
        mediastinum_width_mm=30,
    )


def with_noise(hu: np.ndarray, sigma_hu: float) -> np.ndarray:
    """Blur by a voxel and add noise like that of the low-dose scan, for the eye only."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).standard_normal(hu.shape), (0, 0.6, 0.6))
    return gaussian_filter(hu, (0.2, 0.6, 0.6)) + sigma_hu * noise / noise.std()


def read_series(series: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A DICOM series as ``[z, y, x]`` HU and its spacing."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    z, y, x = image.GetSpacing()[::-1]
    return sitk.GetArrayFromImage(image).astype(np.float32), (z, y, x)


def hu_table(series: Path) -> str:
    """Lung HU of the real series and of the phantom made like it, vessels included, three voxels off every surface."""
    from scipy.ndimage import binary_erosion, gaussian_filter, label

    real, spacing = read_series(series)
    parts, _ = label((real < -400) & (real > -1100))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    sizes[np.unique(np.concatenate([parts[:, 0].ravel(), parts[:, -1].ravel()]))] = 0
    anatomy = Anatomy(like_the_series())
    low, high = anatomy.lung_extent_mm
    tissues = anatomy.render(Grid.around(low, high, spacing))
    drawn = with_noise(tissues.hu, 42.0)
    lobes = (tissues.lobes >= 1) & (tissues.lobes <= 5)
    scans = {"NLST": (real, parts == sizes.argmax()), "phantom": (drawn, lobes & (drawn < -400))}
    marks = (1, 5, 25, 50, 75, 95, 99)
    lines = ["| | mean | sd | sd after 3 mm blur | " + " | ".join(f"{m} %" for m in marks) + " |", "|---" * 11 + "|"]
    for name, (scan, lungs) in scans.items():
        inner = binary_erosion(lungs, iterations=3)
        values = scan[inner]
        blurred = gaussian_filter(scan, [3 / s for s in spacing])[binary_erosion(inner, iterations=3)]
        cells = [values.mean(), values.std(), blurred.std(), *np.percentile(values, marks)]
        lines.append(f"| {name} | " + " | ".join(f"{v:.0f}" for v in cells) + " |")
    return "\n".join(lines) + "\n"


def picture(series: Path, out: Path) -> None:
    """Real and phantom slices beside each other, in two windows, axial, coronal and sagittal."""
    import matplotlib as mpl
    from PIL import Image

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    real = read_series(series)[0][:, ::2, ::2]
    step, size = 1.0818, real.shape[1] * 1.0818
    anatomy = Anatomy(like_the_series())
    high = anatomy.lung_extent_mm[1]
    grid = Grid(real.shape, (2.0, step, step), (high[0] - 125 * 2.0, -size / 2 - 8, -size / 2))
    phantom = with_noise(anatomy.render(grid).hu, 24.0)
    circle = np.hypot(*(np.indices(real.shape[1:]) - real.shape[1] / 2)) > real.shape[1] / 2
    phantom[:, circle] = real[:, circle] = -2048
    views = [
        lambda a: a[56], lambda a: a[84], lambda a: a[104], lambda a: a[::-1, 112], lambda a: a[::-1, 142],
        lambda a: a[::-1, :, 72], lambda a: a[::-1, :, 178],
    ]  # fmt: skip
    figure, axes = plt.subplots(4, len(views), figsize=(2.1 * len(views), 8.6), dpi=66)
    for row, (scan, window) in enumerate((s, w) for w in ((-1350, 150), (-160, 240)) for s in (real, phantom)):
        for column, view in enumerate(views):
            flat = view(scan)
            aspect = 1 if column < 3 else 2.0 / step
            axes[row, column].imshow(flat, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)
            axes[row, column].axis("off")
        axes[row, 0].set_title("NLST" if row % 2 == 0 else "phantom", fontsize=9, loc="left", pad=2)
    figure.subplots_adjust(0, 0, 1, 0.98, 0.02, 0.05)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.canvas.draw()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., 0]).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, help="folder of real lobe maps (NIfTI)")
    parser.add_argument("--phantoms", type=int, default=51)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, help="file to write the table to; printed in any case")
    parser.add_argument("--series", type=Path, help="folder of a real DICOM series for the picture")
    parser.add_argument("--picture", type=Path, help="picture to write")
    chosen = parser.parse_args()
    if chosen.maps:
        text = table(phantom_measures(chosen.phantoms, chosen.seed), real_measures(chosen.maps))
        print(text)
        if chosen.out:
            chosen.out.write_text(text)
    if chosen.series:
        print(hu_table(chosen.series))
        if chosen.picture:
            picture(chosen.series, chosen.picture)


if __name__ == "__main__":
    main()
