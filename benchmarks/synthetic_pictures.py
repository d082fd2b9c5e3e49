"""Pictures of the training on invented images: the curve, and a sheet of invented slices with their labels.

python benchmarks/synthetic_pictures.py runs/synthetic --out docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

from m2unet.anatomy import LOBE_BY_CODE, LOBE_CODES
from m2unet.config import WindowConfig
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.phantom.randomised.samples import REACH, draw_samples
from m2unet.workflows.synthetic import read_curve


def draw_curve(run: Path, path: Path) -> None:
    """Losses of lobes and of visible fissures over steps, each and averaged over 20."""
    rows = read_curve(run / "curve.csv")
    steps = [row["step"] for row in rows]
    figure, axis = plt.subplots(figsize=(6, 3))
    named = {"segmentation": "lobes: cross-entropy + 1 - Dice", "fissures": "fissures: cross-entropy"}
    for (name, label), colour in zip(named.items(), ("#0072b2", "#d55e00"), strict=True):
        loss = np.array([row[name] for row in rows])
        axis.plot(steps, loss, color=colour, linewidth=0.6, alpha=0.25)
        smooth = np.convolve(loss, np.ones(20) / 20, mode="valid")
        axis.plot(steps[19:], smooth, color=colour, label=label)
    axis.legend(frameon=False)
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_ylim(0, 1)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_sheet(pool: ChestPool, path: Path, seed: int) -> None:
    """Sixteen invented slices, labels over every second."""
    colours = [(0, 0, 0, 0)] + [(*(v / 255 for v in LOBE_BY_CODE[c].colour), 0.5) for c in LOBE_CODES]
    colours.append((0.6, 0.6, 0.6, 0.5))
    figure, axes = plt.subplots(4, 8, figsize=(20, 8.4))
    for number, pair in enumerate(axes.reshape(-1, 2)):
        samples = draw_samples(pool, seed, number, WindowConfig(low_hu=-1200, high_hu=200))
        for axis in pair:
            axis.imshow(samples.images[0, REACH], cmap="gray", vmin=0, vmax=1)
            axis.axis("off")
        pair[1].imshow(samples.labels[0], cmap=ListedColormap(colours), vmin=0, vmax=6, interpolation="nearest")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=55)
    plt.close(figure)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pool", type=Path, default=None)
    parser.add_argument("--chests", type=int, default=150)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw_curve(arguments.run, arguments.out / "synthetic-curve.png")
    draw_sheet(ChestPool(arguments.pool or arguments.run / "pool", arguments.chests), arguments.out / "invented.png", 0)


if __name__ == "__main__":
    main()
