"""Pictures without a display: lobes beside the truth, learning curves, ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES, LOBES
from m2unet.evaluation.calibration import Calibration
from m2unet.evaluation.decision import NetBenefit
from m2unet.files import atomic_path
from m2unet.report.contours import LUNG_WINDOW

PHANTOM_NOTE = "Digital phantoms: engineering evidence, never clinical."


@dataclass(frozen=True)
class Panel:
    """One labelled picture of a slice: grey values and, over them, lobes.

    Attributes:
        title: text above it.
        image: ``[rows, columns]`` HU.
        lobes: ``[rows, columns]`` lobe codes, or None.
        aspect: height of a pixel over its width.
    """

    title: str
    image: NDArray[Any]
    lobes: NDArray[Any] | None
    aspect: float = 1.0


def save_comparison(path: Path, rows: Sequence[Sequence[Panel]], *, title: str = "", footer: str = "") -> None:
    """Rows of panels, e.g. image, predicted lobes, true lobes of one scan a row, as PNG."""
    save_panels(path, rows, title=title, footer=footer)


def save_panels(path: Path, rows: Sequence[Sequence[Panel]], *, title: str = "", footer: str = "") -> None:
    """A grid of panels, with a legend of the lobes where one shows them, as PNG or SVG by the path's ending."""
    figure, axes = _subplots(len(rows), max(map(len, rows)), 3.0)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, panels in zip(axes, rows, strict=True):
        for axis, panel in zip(line, panels, strict=False):
            _draw(axis, panel)
    if any(panel.lobes is not None for line in rows for panel in line):
        _legend(figure)
    figure.suptitle(title, fontsize=11)
    figure.text(0.01, 0.005, footer, fontsize=8, color="0.35")
    _save(figure, path)


def _draw(axis: Any, panel: Panel) -> None:
    axis.imshow(
        panel.image,
        cmap="gray",
        vmin=LUNG_WINDOW[0],
        vmax=LUNG_WINDOW[1],
        aspect=panel.aspect,
        interpolation="bilinear",
    )
    axis.set_title(panel.title, fontsize=8)
    if panel.lobes is None:
        return
    overlay = np.zeros((*panel.lobes.shape, 4))
    for lobe in LOBES:
        inside = panel.lobes == lobe.code
        overlay[inside] = (*(c / 255 for c in lobe.colour), 0.33)
    axis.imshow(overlay, aspect=panel.aspect, interpolation="nearest")
    for lobe in LOBES:
        inside = panel.lobes == lobe.code
        if inside.any() and min(inside.shape) > 1:
            colour = [tuple(c / 255 for c in lobe.colour)]
            axis.contour(inside.astype(float), levels=[0.5], colors=colour, linewidths=0.8)


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=[c / 255 for c in lobe.colour], label=lobe.abbreviation) for lobe in LOBES]
    figure.legend(handles=handles, loc="lower right", ncols=len(LOBE_CODES), fontsize=8, frameon=False)


def save_learning_curves(path: Path, history: Sequence[Mapping[str, Any]], *, footer: str = "") -> None:
    """Training losses and validation figures by epoch, as PNG.

    Args:
        path: the PNG to write.
        history: one row an epoch, as ``metrics.csv`` has them.
        footer: a line below.
    """
    figure, axes = _subplots(1, 3, 3.6)
    epochs = [row["epoch"] for row in history]
    losses = (("loss_severity", "severity cross-entropy"), ("loss_lobes", "lobe cross-entropy + (1 - Dice)"))
    for axis, (name, label) in zip(axes[0][:2], losses, strict=True):
        axis.plot(epochs, [row[name] for row in history], color="#0072b2", marker=".")
        axis.set(title=f"training: {label}", xlabel="epoch", ylim=(0, None))
    for name, label, colour in (("val_auc", "AUC", "#d55e00"), ("val_dsc", "lobe Dice (patches)", "#009e73")):
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            axes[0][2].plot(*zip(*points, strict=True), label=label, color=colour, marker="o")
            axes[0][2].legend(loc="lower right", fontsize=8)
    axes[0][2].set(title="validation", xlabel="epoch", ylim=(0, 1.02))
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(9)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.text(0.01, 0.005, footer, fontsize=8, color="0.35")
    _save(figure, path)


@dataclass(frozen=True)
class RocCurve:
    """One ROC curve to draw.

    Attributes:
        label: its name in the legend.
        false_positive_rate, true_positive_rate: points of the curve, ascending.
    """

    label: str
    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]


def save_roc(path: Path, curves: Sequence[RocCurve], *, footer: str = "") -> None:
    """ROC curves of the severe class, as PNG or SVG by the path's ending."""
    figure, axes = _subplots(1, 1, 4.2)
    axis = axes[0][0]
    axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    for curve in curves:
        axis.plot(curve.false_positive_rate, curve.true_positive_rate, label=curve.label, linewidth=2)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=8)
    figure.text(0.01, 0.005, footer, fontsize=7, color="0.35")
    _save(figure, path)


def save_confidence(
    path: Path,
    reliability: Mapping[str, Calibration | None],
    curve: Sequence[NetBenefit],
    *,
    threshold: float | None = None,
    footer: str = "",
) -> None:
    """Reliability diagram and decision curve side by side, as PNG.

    Args:
        path: the PNG to write.
        reliability: calibration figures by name; None is left out.
        curve: net benefit over thresholds.
        threshold: the operating point, drawn into both.
        footer: a line below.
    """
    figure, axes = _subplots(1, 2, 4.2)
    left, right = axes[0]
    left.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    for (name, found), colour in zip(reliability.items(), ("#0072b2", "#e69f00"), strict=False):
        held = [] if found is None else [b for b in found.bins if b.count]
        if found is not None:
            label = f"{name}: Brier {found.brier:.3f}, ECE {found.ece:.3f}"
            left.plot([b.mean_probability for b in held], [b.share_severe for b in held], color=colour, label=label)
            sizes = [12 + 90 * b.count / max(c.count for c in held) for b in held]
            left.scatter([b.mean_probability for b in held], [b.share_severe for b in held], s=sizes, color=colour)
    left.set(xlabel="probability of severe", ylabel="share that was severe", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.legend(loc="upper left", fontsize=7)
    at = [point.threshold for point in curve]
    right.plot(at, [point.model for point in curve], color="#0072b2", label="model")
    right.plot(at, [point.treat_all for point in curve], color="0.5", label="call all severe")
    right.axhline(0, color="0.5", linestyle=":", label="call none severe")
    top = max([point.model for point in curve] + [point.treat_all for point in curve] + [0.05])
    right.set(xlabel="threshold", ylabel="net benefit", xlim=(0, 1), ylim=(-0.5 * top, 1.1 * top))
    right.legend(loc="upper right", fontsize=7)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        if threshold is not None and threshold <= 1:
            axis.axvline(threshold, color="0.3", linestyle=":", linewidth=1)
    figure.text(0.01, 0.005, footer, fontsize=7, color="0.35")
    _save(figure, path)


def _subplots(rows: int, columns: int, inches: float) -> tuple[Any, Any]:
    """A figure and its ``[rows, columns]`` axes, drawn by Agg whatever the user's backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(rect=(0, 0.05, 1, 0.95))
    figure = Figure(figsize=(inches * columns, inches * rows + 0.5), layout=engine)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    """As the ending says, PNG or SVG; the same figure gives the same file."""
    import matplotlib as mpl

    kind = path.suffix.removeprefix(".").lower() or "png"
    with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": "m2unet"}):
        figure.savefig(temporary, dpi=110, format=kind, metadata={"Date": None} if kind == "svg" else None)
