"""Paired tests of one method against the others of its table, on the same test scans.

AUC: DeLong's test with patient-clustered covariance, where each class has enough patients; other figures of severity: a
permutation test that exchanges the two methods' answers within patients; overlap: the sign-flip test over patients.
Test scans of all finished folds are pooled. p-values are two-sided and not adjusted for the number of comparisons.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m2unet.evaluation.comparison import Difference, compare_classification, compare_means, delong_test
from m2unet.evaluation.summary import DASH
from m2unet.paper.outcome import OVERLAPS, Outcome, ScanResult

LEAST_DELONG = 5
"""With fewer patients of a class DeLong's test finds too many differences (docs/evaluation.md); then the permutation's
p-value stands."""


@dataclass(frozen=True)
class Comparison:
    """One tested difference.

    Attributes:
        first, second: labels of the two methods.
        metric: the figure.
        difference: second minus first, with interval and p-value.
        scans, patients: how many were compared.
    """

    first: str
    second: str
    metric: str
    difference: Difference
    scans: int
    patients: int


def compare(
    first: tuple[str, Outcome], second: tuple[str, Outcome], metrics: Sequence[str], *, seed: int = 0
) -> list[Comparison]:
    """Test every figure of ``metrics`` that both methods give.

    Args:
        first, second: label and outcome; the difference is second minus first.
        metrics: columns of a table; what is no measured figure (``size_mib``) is passed over.
        seed: of random permutations.
    """
    pairs = _paired(first[1].scans, second[1].scans)
    return [
        Comparison(first[0], second[0], metric, found, scans, patients)
        for metric, (found, scans, patients) in {
            **_severity(pairs, metrics, seed),
            **_overlap(pairs, metrics, seed),
        }.items()
    ]


_Tested = dict[str, tuple[Difference, int, int]]
_Pairs = list[tuple[ScanResult, ScanResult]]


def _paired(first: Sequence[ScanResult], second: Sequence[ScanResult]) -> _Pairs:
    """Scans that both tested in the same fold, by name."""
    others = {(scan.scan_id, scan.fold): scan for scan in second}
    both = [(scan, others[scan.scan_id, scan.fold]) for scan in first if (scan.scan_id, scan.fold) in others]
    return sorted(both, key=lambda pair: pair[0].scan_id)


def _severity(pairs: _Pairs, metrics: Sequence[str], seed: int) -> _Tested:
    known = [p for p in pairs if p[0].severity is not None and None not in (p[0].probability, p[1].probability)]
    wanted = [m for m in metrics if m not in (*OVERLAPS, "size_mib")]
    if not known or not wanted:
        return {}
    truth = [int(a.severity or 0) for a, _ in known]
    one, two = ([float(pair[side].probability or 0.0) for pair in known] for side in (0, 1))
    patients = [a.patient_id for a, _ in known]
    found = compare_classification(truth, one, two, patients, seed=seed)
    if min(len({p for p, t in zip(patients, truth, strict=True) if t == side}) for side in (0, 1)) >= LEAST_DELONG:
        found["auc"] = delong_test(truth, one, two, patients)
    return {metric: (found[metric], len(known), len(set(patients))) for metric in wanted}


def _overlap(pairs: _Pairs, metrics: Sequence[str], seed: int) -> _Tested:
    known = [pair for pair in pairs if pair[0].overlap and pair[1].overlap]
    if not known:
        return {}
    patients = [a.patient_id for a, _ in known]
    tested: _Tested = {}
    for metric in (m for m in metrics if m in OVERLAPS):
        one, two = ([pair[side].overlap.get(metric) for pair in known] for side in (0, 1))
        found = compare_means(one, two, patients, seed=seed)
        tested[metric] = (found, len(known), len(set(patients)))
    return tested


HEADER = ("first", "second", "metric", "difference", "95 % interval", "p", "test", "scans", "patients")
_TESTS: Mapping[str, str] = {
    "delong": "DeLong, clustered",
    "permutation": "permutation within patients",
    "sign-flip": "sign flip over patients",
}


def grid(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Rows under :data:`HEADER`."""
    rows = []
    for c in comparisons:
        d = c.difference
        interval = DASH if d.low is None or d.high is None else f"[{d.low:+.3f}, {d.high:+.3f}]"
        gap = DASH if d.difference is None else f"{d.difference:+.3f}"
        counts = [str(c.scans), str(c.patients)]
        rows.append([c.first, c.second, c.metric, gap, interval, _p(d), _TESTS[d.method], *counts])
    return rows


def _p(difference: Difference) -> str:
    if difference.p_value is None:
        return f"{DASH} ({difference.reason})" if difference.reason else DASH
    return f"{difference.p_value:.3f}" if difference.p_value >= 0.001 else "< 0.001"


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """One row a comparison."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(grid(comparisons))
    return text.getvalue()


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """A table, with a line on how to read it; empty without comparisons."""
    if not comparisons:
        return ""
    rows = [HEADER, ("---",) * 3 + ("---:",) * 3 + ("---",) + ("---:",) * 2, *grid(comparisons)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(["Paired differences, second minus first:", "", *lines]) + "\n"
