"""A patient over time as one picture: opacity of the lungs and of each lobe, volumes, scores, severity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from m2unet.anatomy import LOBES
from m2unet.quantify.followup import Followup, Z
from m2unet.quantify.timeline import TimePoint
from m2unet.report.figures import _save, _subplots

_INK = "#16202b"


def save_followup_plot(path: Path, found: Followup, *, footer: str = "") -> None:
    """Draw the course as PNG, written atomically; error bars are 95 %.

    Args:
        path: the PNG to write.
        found: the patient's scans.
        footer: a line below.
    """
    figure, axes = _subplots(2, 2, 4.4)
    figure.set_size_inches(10.2, 6.6)
    _lungs(axes[0][0], found)
    _lobes(axes[0][1], found)
    _volumes(axes[1][0], found)
    _scores(axes[1][1], found)
    days = [point.date for point in found.points]
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.set_xticks(days, [f"{day:%d %b %Y}" for day in days], rotation=20, fontsize=8, ha="right")
        axis.margins(x=0.06)
    figure.text(0.01, 0.005, footer, fontsize=8, color="0.35")
    _save(figure, path)


def _known(found: Followup, value: Callable[[TimePoint], float | None]) -> tuple[list[Any], list[float]]:
    pairs = [(point.date, value(point)) for point in found.points]
    kept = [(date, figure) for date, figure in pairs if figure is not None]
    return [date for date, _ in kept], [figure for _, figure in kept]


def _lungs(axis: Any, found: Followup) -> None:
    days, percent = _known(found, lambda p: p.parts["lungs"].opacity_percent)
    slices = {point.date: point.thickness_mm for point in found.points}
    bars = [Z * found.model.sigma(p, slices[day]) for day, p in zip(days, percent, strict=True)]
    lower = [min(bar, p) for bar, p in zip(bars, percent, strict=True)]
    axis.errorbar(days, percent, [lower, bars], color=_INK, marker="o", capsize=4, linewidth=2, label="opacity")
    days, dense = _known(found, lambda p: p.parts["lungs"].consolidation_percent)
    axis.plot(days, dense, color="#cc79a7", marker="s", markersize=4, linestyle="--", label="consolidation in it")
    axis.set(title="Opacity of both lungs, % of volume", ylim=(0, None))
    axis.legend(fontsize=8, frameon=False)


def _lobes(axis: Any, found: Followup) -> None:
    for lobe in LOBES:
        days, percent = _known(found, lambda p, name=lobe.abbreviation: p.parts[name].opacity_percent)  # type: ignore[misc]
        colour = [c / 255 for c in lobe.colour]
        axis.plot(days, percent, color=colour, marker="o", markersize=4, label=lobe.abbreviation)
    axis.set(title="Opacity of each lobe, % of its volume", ylim=(0, None))
    axis.legend(fontsize=8, frameon=False, ncols=2)


def _volumes(axis: Any, found: Followup) -> None:
    for lobe in LOBES:
        days, volume = _known(found, lambda p, name=lobe.abbreviation: p.parts[name].volume_ml)  # type: ignore[misc]
        axis.plot(days, volume, color=[c / 255 for c in lobe.colour], marker="o", markersize=4)
    axis.set(title="Volume of each lobe, ml (breath moves it, too)", ylim=(0, None))


def _scores(axis: Any, found: Followup) -> None:
    days, scores = _known(found, lambda p: p.scores.get("ct_severity_score"))
    if scores:
        bar = Z * found.model.ct_severity_score
        axis.errorbar(days, scores, bar, color="#0b5c8c", marker="o", capsize=4, label="CT severity score (0-40)")
    axis.set(title="CT severity score and probability of severe", ylim=(0, 42))
    days, severity = _known(found, lambda p: p.severity)
    handles, labels = axis.get_legend_handles_labels()
    if severity:
        spreads = {point.date: Z * (point.severity_spread or 0.0) for point in found.points}
        other = axis.twinx()
        other.errorbar(
            days,
            severity,
            [spreads[day] for day in days],
            color="#d55e00",
            marker="D",
            markersize=4,
            capsize=3,
            linestyle="--",
            label="probability of severe (right)",
        )
        other.set(ylim=(0, 1.05))
        more = other.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axis.legend(handles, labels, fontsize=8, frameon=False)
