"""Figures made of scored scans."""

from __future__ import annotations

import pytest

from m2unet.workflows.scoring import ScanScore, figures


def test_intervals_of_distances_and_of_overlaps_keep_to_what_is_possible() -> None:
    scored = [
        ScanScore(f"s{n}", f"p{n}", overlap={"dsc": dsc, "hd95_mm": distance})
        for n, (dsc, distance) in enumerate([(0.99, 2.0), (0.7, 40.0), (0.95, 4.0), (0.97, 3.0)])
    ]
    found = figures(scored).per_scan
    distance, overlap = found["hd95_mm"], found["dsc"]
    assert distance.low is not None and distance.high is not None and overlap.low is not None
    assert 0 < distance.low < 12.25 < distance.high
    assert distance.estimate == pytest.approx(12.25)
    assert overlap.high is not None and 0 < overlap.low < 0.9025 < overlap.high < 1
