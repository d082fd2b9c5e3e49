"""Figures of a run are drawn without a display, with their curves where the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from m2unet.anatomy import LOBE_BY_CODE
from m2unet.report.figures import Panel, RocCurve, save_comparison, save_learning_curves, save_roc


def coloured(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """``[n, 2]`` rows and columns of a colour."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.argwhere(np.abs(picture - np.array(colour)).max(axis=-1) <= 6)


def test_lobes_are_tinted_only_where_given(tmp_path: Path) -> None:
    image = np.full((40, 40), -1350, np.int16)
    lobes = np.zeros((40, 40), np.uint8)
    lobes[10:30, 10:30] = 2
    red, green, blue = (round(0.33 * part) for part in LOBE_BY_CODE[2].colour)  # a tint over black
    save_comparison(tmp_path / "plain.png", [[Panel("scan", image, None)]])
    save_comparison(tmp_path / "lobes.png", [[Panel("scan", image, lobes, 2.0)]], title="t", footer="f")
    plain, drawn = (coloured(tmp_path / name, (red, green, blue)) for name in ("plain.png", "lobes.png"))
    assert not len(plain) and len(drawn) > 1000


def test_learning_curves_take_missing_validations(tmp_path: Path) -> None:
    history = [
        {"epoch": 1, "loss_severity": 0.7, "loss_lobes": 1.5, "val_auc": None, "val_dsc": None},
        {"epoch": 2, "loss_severity": 0.3, "loss_lobes": 0.6, "val_auc": 0.9, "val_dsc": 0.8},
    ]
    save_learning_curves(tmp_path / "curves.png", history, footer="x")
    assert len(coloured(tmp_path / "curves.png", (0, 114, 178))) > 100
    assert len(coloured(tmp_path / "curves.png", (213, 94, 0))) > 5  # the one validation


def test_a_perfect_roc_curve_hugs_the_corner(tmp_path: Path) -> None:
    save_roc(tmp_path / "roc.png", [RocCurve("perfect", [0, 0, 1], [0, 1, 1])])
    points = coloured(tmp_path / "roc.png", (31, 119, 180))
    rows, columns = points.T
    height, width = np.asarray(Image.open(tmp_path / "roc.png")).shape[:2]
    assert rows.min() < 0.2 * height and columns.min() < 0.3 * width and rows.max() > 0.6 * height
