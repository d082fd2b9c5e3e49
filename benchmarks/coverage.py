"""How often do the 95 % intervals hold the truth, and how often does a test find a difference where there is none?

    python benchmarks/coverage.py [--cohorts 2000] [--json docs/coverage.json]

Cohorts of 10, 30 and 100 simulated patients with one to four scans each, 30 % of them severe. Scans of a patient are
alike: four fifths of the variance of their scores is the patient's own. Scores are normal, so the true AUC, sensitivity
and specificity are known exactly; Dice coefficients are skewed as real ones are, with a known mean. An interval that is
not given (too few patients of a class) counts neither as holding nor as missing; ``not_given`` is how often. For the
tests both methods are equally good: the share of p-values below 0.05 should be at most 5 %.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from m2unet.evaluation.comparison import compare_classification, compare_means, delong_test
from m2unet.evaluation.intervals import Interval, classification_intervals, mean_intervals

PATIENTS = (10, 30, 100)
TESTED = (3, 5, 10, 30)
SEVERE = 0.3
ALIKE = 0.8
AREAS = {"good": 0.8, "excellent": 0.97}
SLOPE, CENTRE, SPREAD = 1.0, 2.2, 0.8


def scans(patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Patient number, severity and patient name of each scan."""
    index = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    severe = rng.random(patients) < SEVERE
    return index, severe[index], [str(number) for number in index]


def alike(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal noise of which ``ALIKE`` of the variance is shared by a patient's scans."""
    own = rng.normal(size=index.max() + 1)[index]
    return np.sqrt(ALIKE) * own + np.sqrt(1 - ALIKE) * rng.normal(size=index.size)


def dice(index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dice coefficients, skewed towards low ones."""
    return 1 / (1 + np.exp(-(CENTRE + SPREAD * alike(index, rng))))


def true_dice() -> float:
    """Mean of :func:`dice`, by quadrature."""
    at = np.linspace(-8, 8, 20001)
    weight = norm.pdf(at)
    return float(np.sum(weight / (1 + np.exp(-(CENTRE + SPREAD * at)))) / np.sum(weight))


def coverage(cohorts: int) -> list[dict[str, Any]]:
    """One row for each figure, number of patients and quality of the scores."""
    rows = []
    for patients in PATIENTS:
        for quality, area in AREAS.items():
            shift = norm.ppf(area) * np.sqrt(2)
            cut = shift / 2
            truth = {"auc": area, "recall": float(norm.cdf(shift - cut)), "specificity": float(norm.cdf(cut))}
            truth["accuracy"] = SEVERE * truth["recall"] + (1 - SEVERE) * truth["specificity"]
            if quality == "good":
                truth["dice"] = true_dice()
            found: dict[str, list[Interval]] = defaultdict(list)
            for seed in range(cohorts):
                rng = np.random.default_rng([patients, seed, int(100 * area)])
                index, severe, names = scans(patients, rng)
                score = norm.cdf(alike(index, rng) + shift * severe - cut)
                for name, interval in classification_intervals(severe, score, names).items():
                    if name in truth:
                        found[name].append(interval)
                if quality == "good":
                    found["dice"].append(mean_intervals({"d": dice(index, rng)}, names, limits={"d": (0.0, 1.0)})["d"])
            rows += [_row(name, patients, quality, truth[name], found[name]) for name in truth]
    return rows


def _row(name: str, patients: int, quality: str, truth: float, intervals: list[Interval]) -> dict[str, Any]:
    given = [i for i in intervals if i.low is not None and i.high is not None]
    held = [i.low <= truth <= i.high for i in given]  # type: ignore[operator]
    width = [i.high - i.low for i in given]  # type: ignore[operator]
    return {
        "figure": name,
        "patients": patients,
        "scores": quality,
        "truth": round(truth, 4),
        "covered": round(float(np.mean(held)), 4),
        "mean_width": round(float(np.mean(width)), 4),
        "least_width": round(float(np.min(width)), 4),
        "not_given": round(1 - len(given) / len(intervals), 4),
    }


def false_alarms(cohorts: int) -> list[dict[str, Any]]:
    """Share of p-values below 0.05 where both methods are equally good; None where no test was possible."""
    rows = []
    shift = norm.ppf(0.8) * np.sqrt(2)
    for patients in TESTED:
        below: dict[str, list[bool]] = defaultdict(list)
        for seed in range(cohorts):
            rng = np.random.default_rng([patients, seed, 1])
            index, severe, names = scans(patients, rng)
            p = {"dice, sign flip": compare_means(dice(index, rng), dice(index, rng), names, permutations=999).p_value}
            one, two = (norm.cdf(alike(index, rng) + shift * severe - shift / 2) for _ in range(2))
            found = compare_classification(severe, one, two, names, permutations=199)
            p |= {f"{name}, permutation": found[name].p_value for name in ("accuracy", "auc")}
            p["auc, DeLong clustered"] = delong_test(severe, one, two, names).p_value
            for name, value in p.items():
                if value is not None:
                    below[name].append(value < 0.05)
        rows += [
            {"test": name, "patients": patients, "below_0.05": round(float(np.mean(hits)), 4), "tested": len(hits)}
            for name, hits in below.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=2000, help="simulated cohorts of each kind")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    result = {
        "cohorts": options.cohorts,
        "severe": SEVERE,
        "alike": ALIKE,
        "coverage": coverage(options.cohorts),
        "false_alarms": false_alarms(options.cohorts // 2),
    }
    for row in (*result["coverage"], *result["false_alarms"]):
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
