"""Patients and images on both sides of a split are found, refused and reported."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from m2unet.cohort.folds import Split
from m2unet.cohort.manifest import Manifest
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.errors import RunError
from m2unet.inference.predictor import packaged_model
from m2unet.workflows.leakage import KnownScan, check_split, check_test, compare, record_training
from m2unet.workflows.run_folder import RunFolder
from m2unet.workflows.store import prepared_store
from m2unet.workflows.train import TrainJob, train_run


def scan(name: str, patient: str | None, content: str | None, use: str) -> KnownScan:
    return KnownScan(name, patient, content, use)


def test_comparison_by_hand() -> None:
    found = compare(
        [
            scan("a1", "a", "x", "train"),
            scan("a2", "a", "y", "train"),
            scan("a3", "a", "z", "test"),
            scan("b1", "b", "x", "test"),
            scan("c1", None, None, "test"),
            scan("d1", None, None, "train"),
        ]
    )
    assert found.found and found.same_patient == ("a1", "a2", "a3") and found.same_content == (("a1", "b1"),)
    assert "1 image(s) on both sides (a1 = b1)" in found.said
    clean = compare([scan("a", "a", "x", "train"), scan("b", "b", "y", "test")])
    assert not clean.found and clean.said == "no patient and no image on both sides"


@pytest.fixture
def twin(cohort: Manifest, tmp_path: Path, tiny_config: Config) -> tuple[Store, str, str]:
    """A store of three scans, one of which is there twice under another name and patient."""
    rows = [*cohort.rows[:3], replace(cohort.rows[0], scan_id="twin", patient_id="another")]
    manifest = Manifest(cohort.path, tuple(rows))
    return prepared_store(manifest, tmp_path / "store", tiny_config), rows[0].scan_id, "twin"


def test_the_same_image_under_two_names_is_refused(
    twin: tuple[Store, str, str], tiny_config: Config, tmp_path: Path
) -> None:
    store, first, second = twin
    split = Split((first,), (second,), ())
    with pytest.raises(RunError, match=f"{first} = {second}"):
        check_split(store, split)
    with pytest.raises(RunError, match="same patient_id"):
        train_run(TrainJob(store, split, tiny_config, tmp_path / "run", "x"))


def test_a_split_by_scan_leaks_with_a_warning(twin: tuple[Store, str, str], caplog: pytest.LogCaptureFixture) -> None:
    store, first, second = twin
    with caplog.at_level(logging.WARNING):
        found = check_split(store, Split((first,), (), (second,)), by="scan")
    assert found.found and "leaks" in caplog.text


def test_a_patient_on_both_sides_is_refused(run: RunFolder, cohort: Manifest) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    one, other = next(
        (a.scan_id, b.scan_id) for a in cohort.rows for b in cohort.rows if a.patient_id == b.patient_id and a != b
    )
    with pytest.raises(RunError, match="patients on both sides"):
        check_split(store, Split((one,), (), (other,)))


def test_tested_scans_are_compared_with_those_of_the_run(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    store = Store(run.path.parent / "store", cohort.rows)
    first, second, third = (row.scan_id for row in cohort.rows[:3])
    record_training(store, Split((first,), (second,), (third,)), tmp_path)
    content = store.record(first).content_sha256
    found = check_test(
        tmp_path / "model", [scan("renamed", "somebody", content, "test"), scan("new", "n", "q", "test")]
    )
    assert found.same_content == ((first, "renamed"),) and found.same_patient == ()
    same = check_test(tmp_path, [scan("other", cohort.rows[1].patient_id, None, "test")])
    assert same.same_patient == ("other",) and "1 scan(s) could not be compared" in str(same.reason)
    assert not check_test(tmp_path, [scan("new", "n", "q", "test")]).found
    for nothing in (None, tmp_path / "model" / "deeper"):
        unknown = check_test(nothing, [])
        assert not unknown.checked and "not checked" in unknown.said
    shipped = check_test(packaged_model(), [scan("new", "n", "q", "test")])
    assert shipped.checked and not shipped.found, "it has seen no patient"
    (tmp_path / "training_scans.json").write_text('{"scans": [{}]}')
    with pytest.raises(RunError, match="damaged"):
        check_test(tmp_path, [])
