"""Folds: by patient, stratified, every patient tested once, reusable."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2unet.cohort.folds import hold_out, load_folds, make_folds, save_folds
from m2unet.cohort.manifest import ManifestRow
from m2unet.errors import ManifestError, RunError


def cohort(severe: int, mild: int, unknown: int = 0, *, seed: int = 0, most: int = 5) -> list[ManifestRow]:
    """Patients with one to ``most`` scans each."""
    rng = np.random.default_rng(seed)
    labels = [1] * severe + [0] * mild + [None] * unknown
    return [
        ManifestRow(f"s{p:03d}-{k}", f"p{p}", Path("x"), severity=label)
        for p, label in enumerate(labels)
        for k in range(int(rng.integers(1, most + 1)))
    ]


def test_the_papers_cohort_splits_as_the_paper_says() -> None:
    rows = cohort(51, 191)
    by_id = {row.scan_id: row for row in rows}
    patient = {row.scan_id: row.patient_id for row in rows}
    splits = make_folds(rows, seed=3)
    assert len(splits) == 5
    assert sorted(s for split in splits for s in split.test) == sorted(by_id)
    share = sum(row.severity or 0 for row in rows) / len(rows)
    for split in splits:
        sides = (split.train, split.validation, split.test)
        assert sorted(s for side in sides for s in side) == sorted(by_id)
        people = [{patient[s] for s in side} for side in sides]
        assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
        for side, part in zip(sides, (0.7, 0.1, 0.2), strict=True):
            assert len(side) / len(rows) == pytest.approx(part, abs=0.04)
            assert sum(by_id[s].severity or 0 for s in side) / len(side) == pytest.approx(share, abs=0.08)


def test_same_seed_same_folds_whatever_the_order() -> None:
    rows = cohort(8, 20)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert make_folds(rows, seed=1) == make_folds(shuffled, seed=1)
    assert make_folds(rows, seed=1) != make_folds(rows, seed=2)


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_cohort_still_has_both_classes_everywhere(seed: int) -> None:
    rows = cohort(5, 5, seed=seed, most=10)
    severity = {row.scan_id: row.severity for row in rows}
    for split in make_folds(rows, seed=seed):
        for side in (split.train, split.validation, split.test):
            assert {severity[s] for s in side} == {0, 1}


def test_too_few_patients_of_a_class() -> None:
    with pytest.raises(ManifestError) as caught:
        make_folds(cohort(4, 2), seed=0)
    assert caught.value.faults == (
        "2 patient(s) non-severe, at least 5 are needed",
        "4 patient(s) severe, at least 5 are needed",
    )
    with pytest.raises(ManifestError, match="no scan"):
        make_folds([], seed=0)
    with pytest.raises(ManifestError, match="0 patient"):
        make_folds(cohort(9, 0), seed=0)
    with pytest.raises(ManifestError, match="at least 3"):
        make_folds(cohort(9, 9), seed=0, folds=2)
    assert len(make_folds(cohort(3, 3), seed=0, folds=3)) == 3


def test_by_scan_parts_a_patients_scans() -> None:
    rows = cohort(10, 30, most=6)
    splits = make_folds(rows, by="scan", seed=0)
    patient = {row.scan_id: row.patient_id for row in rows}
    assert sorted(s for split in splits for s in split.test) == sorted(patient)
    assert {patient[s] for s in splits[0].train} & {patient[s] for s in splits[0].test}
    assert [len(split.test) for split in splits] == pytest.approx([len(rows) / 5] * 5, abs=1)


def test_unknown_severity_is_a_stratum_of_its_own() -> None:
    rows = cohort(10, 20, unknown=15, most=1)
    unknown = {row.scan_id for row in rows if row.severity is None}
    for split in make_folds(rows, seed=0):
        assert len(unknown & set(split.test)) == 3
        assert len(unknown & set(split.validation)) == 2


def test_a_few_scans_of_unknown_severity_do_not_forbid_folds() -> None:
    rows = cohort(5, 5, unknown=2, most=1)
    splits = make_folds(rows, seed=0)
    assert sorted(s for split in splits for s in split.test) == sorted(row.scan_id for row in rows)


def test_a_cohort_with_lobes_only() -> None:
    splits = make_folds(cohort(0, 0, unknown=10, most=1), seed=0)
    assert [(len(s.train), len(s.validation), len(s.test)) for s in splits] == [(7, 1, 2)] * 5


def test_a_patient_with_any_severe_scan_counts_as_severe() -> None:
    rows = cohort(4, 9, most=1)
    mixed = [ManifestRow("m0", "mixed", Path("x"), severity=0), ManifestRow("m1", "mixed", Path("x"), severity=1)]
    splits = make_folds(rows + mixed, seed=0)
    assert [sum(s in ("m0", "m1") for s in split.test) for split in splits].count(2) == 1


def test_saved_folds_come_back(tmp_path: Path) -> None:
    rows = cohort(6, 9)
    splits = make_folds(rows, seed=5)
    save_folds(splits, tmp_path / "folds.json", by="patient", seed=5)
    assert load_folds(tmp_path / "folds.json", rows, by="patient") == splits
    values = json.loads((tmp_path / "folds.json").read_text())
    assert (values["schema"], values["version"], values["by"], values["seed"]) == ("m2unet/folds", 1, "patient", 5)


def test_folds_of_another_cohort_are_refused(tmp_path: Path) -> None:
    rows = cohort(6, 9)
    path = tmp_path / "folds.json"
    save_folds(make_folds(rows, seed=5), path, by="patient", seed=5)
    with pytest.raises(RunError, match=r"1 scan\(s\) the manifest lacks"):
        load_folds(path, rows[1:])
    with pytest.raises(RunError, match=r"1 scan\(s\) in no test set"):
        load_folds(path, [*rows, ManifestRow("new", "new", Path("x"))])
    with pytest.raises(RunError, match="by scan"):
        load_folds(path, by="scan")


def test_folds_that_were_tampered_with_are_refused(tmp_path: Path) -> None:
    rows = cohort(6, 9, most=1)
    path = tmp_path / "folds.json"
    save_folds(make_folds(rows, seed=5), path, by="patient", seed=5)
    values = json.loads(path.read_text())
    values["folds"][0]["train"].pop()
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match="every scan once"):
        load_folds(path, rows)


def test_a_patient_on_two_sides_is_refused(tmp_path: Path) -> None:
    rows = cohort(6, 9, most=6)
    path = tmp_path / "folds.json"
    save_folds(make_folds(rows, by="scan", seed=5), path, by="patient", seed=5)  # mislabelled
    with pytest.raises(RunError, match="two sides"):
        load_folds(path, rows)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "m2unet/folds", "version": 2, "by": "scan", "folds": []}']
)
def test_files_that_hold_no_folds(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(RunError, match="does not hold folds"):
        load_folds(tmp_path / "folds.json")
    with pytest.raises(RunError):
        load_folds(tmp_path / "absent.json")


def test_holding_out_a_share_of_patients() -> None:
    rows = cohort(10, 30)
    split = hold_out(rows, share=0.2, seed=0)
    patient = {row.scan_id: (row.patient_id, row.severity) for row in rows}
    held, kept = ({patient[s] for s in side} for side in (split.validation, split.train))
    assert split.test == () and len(split.train) + len(split.validation) == len(rows)
    assert not held & kept
    assert sorted(severity or 0 for _, severity in held) == [0] * 6 + [1] * 2
    assert split == hold_out(rows[::-1], share=0.2, seed=0) != hold_out(rows, share=0.2, seed=1)
    assert hold_out(rows, share=0, seed=0).validation == ()
    assert len(hold_out(cohort(1, 2, most=1), share=0.5, seed=0).train) == 2  # the only severe patient trains


def masked(rows: list[ManifestRow], patients: int) -> list[ManifestRow]:
    """The rows, those of the first so many patients with a lobe mask."""
    return [replace(row, lobes=Path("x")) if int(row.patient_id[1:]) < patients else row for row in rows]


def test_folds_for_lobes_share_the_masks() -> None:
    rows = masked(cohort(51, 191, most=3), 40)
    with_mask = {row.scan_id for row in rows if row.lobes is not None}
    for split in make_folds(rows, seed=0, label="lobes"):
        assert len(with_mask & set(split.test)) / len(with_mask) == pytest.approx(0.2, abs=0.06)
        assert with_mask & set(split.validation) and len(with_mask & set(split.train)) > 0.5 * len(with_mask)
    every = masked(cohort(10, 20), 30)
    assert make_folds(every, seed=1, label="lobes") == make_folds(every, seed=1)
    assert hold_out(every, seed=1, label="lobes") == hold_out(every, seed=1)


def test_folds_for_lobes_need_masks_and_no_severities() -> None:
    rows = masked(cohort(2, 4, unknown=9, most=1), 6)  # two severe patients are too few for folds by severity
    with pytest.raises(ManifestError, match="severe"):
        make_folds(rows, seed=0)
    splits = make_folds(rows, seed=0, label="lobes")
    bearing = {row.scan_id for row in rows if row.lobes is not None}
    assert all(bearing & set(split.test) for split in splits)
    with pytest.raises(ManifestError, match=r"4 patient\(s\) with a lobe mask, at least 5"):
        make_folds(masked(cohort(9, 9), 4), seed=0, label="lobes")


def test_holding_out_for_lobes_takes_the_share_of_those_with_a_mask() -> None:
    rows = masked(cohort(10, 30, most=1), 8)
    held = hold_out(rows, share=0.25, seed=0, label="lobes").validation
    assert sum(row.lobes is not None for row in rows if row.scan_id in held) == 2
