"""The follow-up's error of measurement, fitted to repeats, and its verdicts against the truth of phantom courses.

    python benchmarks/followup_scans.py --patients 30 --scans 3 --seed 31 --repeats --out repeats.jsonl
    python benchmarks/followup_scans.py --patients 40 --scans 4 --seed 77 --out courses.jsonl
    python benchmarks/followup.py --repeats repeats.jsonl --courses courses.jsonl --picture docs/images/followup.png

The truth of a scan is the planned opacified share of each lobe, weighted by the lobes' volumes: it knows nothing of
breath, slices or noise. Pairs are all pairs of one patient's scans. ``--distance`` takes the distance of slices for
their thickness, as for NIfTI files, whose header does not tell it.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from m2unet.quantify.followup import Comparison, compare
from m2unet.quantify.inflation import at_reference_breath, density_ratio
from m2unet.quantify.timeline import ErrorModel, PartFigures, TimePoint

LIMIT = 5.0
"""Points of true change from which a verdict must be right."""


@dataclass(frozen=True)
class Pair:
    """Two scans of a patient and what is said of them."""

    comparison: Comparison
    true_change: float
    true_score_change: float

    @property
    def truth(self) -> str:
        """What the verdict should be where the change is large."""
        return "progress" if self.true_change > 0 else "regress"


def point(row: dict[str, Any], distance: bool) -> TimePoint:
    """A measured scan as the follow-up takes it."""
    names = {field.name for field in fields(PartFigures)}
    parts = {name: PartFigures(**{k: v for k, v in part.items() if k in names}) for name, part in row["parts"].items()}
    return TimePoint(
        name=row["scan"],
        date=datetime.date.fromisoformat(row["date"]),
        slice_mm=row["slice_mm"],
        thickness_mm=row["slice_mm"] if distance else row["thickness_mm"],
        aerated_hu=row["aerated_hu"],
        parts=parts,
        scores={name.replace("-", "_"): total for name, total in row["scores"].items()},
    )


def fit(rows: Sequence[dict[str, Any]], distance: bool, floor: float = 0.3) -> tuple[float, float, float]:
    """Maximum likelihood of ``per_mm`` and ``spread`` over repeats, and the share of repeats beyond 1.96 sigma."""
    by = {row["scan"]: row for row in rows}
    table = []
    for name, row in by.items():
        if not name.endswith("r") and f"{name}r" in by:
            a, b = point(row, distance), point(by[f"{name}r"], distance)
            p, q = a.parts["lungs"], b.parts["lungs"]
            assert a.aerated_hu is not None and b.aerated_hu is not None
            assert q.opacity_ml is not None and q.volume_ml is not None
            same = at_reference_breath(q.opacity_ml, q.volume_ml, density_ratio(b.aerated_hu, a.aerated_hu))
            change = 0.5 * (q.opacity_percent + same) - p.opacity_percent  # type: ignore[operator]
            gap = 0.5 * (q.opacity_percent - same)  # type: ignore[operator]
            table.append((change, gap, p.opacity_percent, q.opacity_percent, a.thickness_mm, b.thickness_mm))
    change, gap, p1, p2, t1, t2 = np.array(table).T

    def variance(logs: np.ndarray) -> np.ndarray:
        per_mm, spread = np.exp(logs)
        bulk = (p1 * (100 - p1) / 100) ** 2 + (p2 * (100 - p2) / 100) ** 2
        return 2 * floor**2 + per_mm**2 * (t1**2 + t2**2) + spread**2 * bulk + gap**2

    def loss(logs: np.ndarray) -> float:
        v = variance(logs)
        return float(0.5 * np.sum(np.log(v) + change**2 / v))

    best = minimize(loss, [-2.0, -2.5], method="Nelder-Mead").x
    beyond = float(np.mean(np.abs(change) > 1.96 * np.sqrt(variance(best))))
    return float(np.exp(best[0])), float(np.exp(best[1])), beyond


def pairs(rows: Sequence[dict[str, Any]], distance: bool, *, breath: bool = True) -> list[Pair]:
    """All pairs of each patient's scans."""
    found, patients = [], sorted({row["patient"] for row in rows})
    for patient in patients:
        mine = sorted((row for row in rows if row["patient"] == patient), key=lambda row: (row["date"], row["scan"]))
        for a, b in combinations(mine, 2):
            first, second = point(a, distance), point(b, distance)
            if not breath:
                first = TimePoint(**{**first.__dict__, "aerated_hu": None})
            said = compare(first, second, ErrorModel())
            score = b["true_score"] - a["true_score"]
            found.append(Pair(said, b["true_percent"] - a["true_percent"], score))
    return found


def agreement(found: Sequence[Pair], true_changes: Sequence[float]) -> str:
    """Right verdicts among the pairs whose true change is above the limit, and how the others went wrong."""
    large = [(p, c) for p, c in zip(found, true_changes, strict=True) if abs(c) > LIMIT]
    right = sum(p.comparison.verdict == ("progress" if c > 0 else "regress") for p, c in large)
    stable = sum(p.comparison.verdict == "stable" for p, _ in large)
    low, high = wilson(right, len(large))
    return (
        f"{right}/{len(large)} = {100 * right / max(len(large), 1):.1f} % ({low:.1f}-{high:.1f}) right, "
        f"{stable} called stable, {len(large) - right - stable} the other way"
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % Wilson interval in percent."""
    from scipy.stats import binomtest

    if not count:
        return 0.0, 100.0
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def picture(found: Sequence[Pair], path: Path, note: str) -> None:
    """True against measured change, coloured by verdict."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    colours = {"progress": "#d55e00", "stable": "#0072b2", "regress": "#009e73"}
    for verdict, colour in colours.items():
        chosen = [p for p in found if p.comparison.verdict == verdict]
        changes = [p.comparison.parts["lungs"].opacity_percent for p in chosen]
        axis.errorbar(
            [p.true_change for p in chosen],
            [c.change for c in changes],
            [1.96 * (c.sigma or 0.0) for c in changes],
            fmt="o",
            markersize=4,
            elinewidth=0.6,
            alpha=0.75,
            color=colour,
            label=f"{verdict} ({len(chosen)})",
        )
    reach = max(abs(p.true_change) for p in found) * 1.1
    axis.plot([-reach, reach], [-reach, reach], color="0.6", linewidth=0.8)
    axis.axvspan(-LIMIT, LIMIT, color="0.93", zorder=0)
    axis.set(xlabel="true change of opacity, points of the lungs", ylabel="measured change, with 95 % error")
    axis.set_title(note, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(title="verdict", fontsize=9)
    figure.text(0.01, -0.02, "Digital phantoms: engineering evidence, never clinical.", fontsize=7, color="0.35")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a measured cohort."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> None:
    """Fit, judge, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=Path)
    parser.add_argument("--courses", type=Path)
    parser.add_argument("--distance", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.repeats:
        rows = read(options.repeats)
        per_mm, spread, beyond = fit(rows, options.distance)
        print(f"{len(rows) // 2} repeats: per_mm {per_mm:.3f}, spread {spread:.3f}; {100 * beyond:.1f} % beyond 1.96")
        repeats = [p for p in pairs(rows, options.distance) if p.comparison.second == f"{p.comparison.first}r"]
        called = sum(p.comparison.verdict != "stable" for p in repeats)
        plain = [
            p for p in pairs(rows, options.distance, breath=False) if p.comparison.second == f"{p.comparison.first}r"
        ]
        called_plain = sum(p.comparison.verdict != "stable" for p in plain)
        print(f"no true change: {called}/{len(repeats)} called a change; without regard to breath {called_plain}")
    if options.courses:
        rows = read(options.courses)
        found = pairs(rows, options.distance)
        print(f"{len(rows)} scans of {len({row['patient'] for row in rows})} patients, {len(found)} pairs")
        print("true change of opacity above 5 points:", agreement(found, [p.true_change for p in found]))
        print("true change of the severity score above 5:", agreement(found, [p.true_score_change for p in found]))
        plain = pairs(rows, options.distance, breath=False)
        print("without regard to breath:", agreement(plain, [p.true_change for p in plain]))
        small = [p for p in found if abs(p.true_change) < 2]
        wrong = sum(p.comparison.verdict not in ("stable", p.truth) for p in small)
        called = sum(p.comparison.verdict != "stable" for p in small)
        print(f"true change below 2 points: {called}/{len(small)} called a change, {wrong} of them the wrong way")
        if options.picture:
            large = [p for p in found if abs(p.true_change) > LIMIT]
            right = sum(p.comparison.verdict == p.truth for p in large)
            picture(
                found, options.picture, f"{len(found)} pairs; beyond 5 points {right} of {len(large)} verdicts right"
            )


if __name__ == "__main__":
    main()
