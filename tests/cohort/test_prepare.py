"""Preparing a cohort: what is stored, what is skipped, and what a bad scan does to the others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m2unet.cohort import prepare as module
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from m2unet.cohort.prepare import PrepareReport, ScanOutcome, prepare_cohort, source_fingerprint
from m2unet.cohort.store import Store
from m2unet.config import PrepareConfig
from m2unet.errors import StoreError
from tests.cohort.conftest import SHAPE, SPACING, chest, save

CONFIG = PrepareConfig(min_box=48)
ALL = ("scan0", "scan1", "scan2", "scan3")


def prepare(cohort: Path, config: PrepareConfig = CONFIG, **options: object) -> PrepareReport:
    return prepare_cohort(read_manifest(cohort), cohort.parent / "store", config, **options)  # type: ignore[arg-type]


def fail_to_read(path: Path) -> None:
    raise AssertionError(f"{path} should not be read")


def test_the_store_holds_the_body_with_its_lobes(cohort: Path) -> None:
    report = prepare(cohort)
    assert (report.prepared, report.skipped, report.failed, report.exit_code) == (ALL, (), {}, 0)
    store = Store(cohort.parent / "store", read_manifest(cohort).rows)
    assert store.scan_ids() == list(ALL)
    for number, name in enumerate(ALL):
        hu, lobes = chest(number)
        scan = store.open(name)
        back = scan.prepared()
        assert scan.spacing_mm == pytest.approx(SPACING)
        assert scan.array.shape[0] == SHAPE[0] and scan.array.shape[1] < SHAPE[1]
        top, bottom, left, right = back.window
        inside = lobes[:, top:bottom, left:right] > 0
        assert inside.sum() == (lobes > 0).sum()
        assert np.array_equal(scan.array[inside], hu[:, top:bottom, left:right][inside])
        body, lungs = scan.references["body"], scan.references["lungs"]
        assert body is not None and lungs is not None and (body[0] <= lungs[0]).all() and (lungs[1] <= body[1]).all()
        assert scan.severity == number % 2
        if number == 2:
            assert scan.lobes is None and scan.record.lobes is None
        else:
            assert scan.lobes is not None and scan.record.lobes == [0, 1, 2, 3, 4, 5]
            assert np.array_equal(back.restore_mask(np.asarray(scan.lobes)), lobes)


def test_the_content_hash_is_of_shape_and_values(cohort: Path) -> None:
    prepare(cohort)
    scan = Store(cohort.parent / "store").open("scan0")
    expected = hashlib.sha256(json.dumps(list(scan.array.shape)).encode() + scan.array.tobytes()).hexdigest()
    assert scan.record.content_sha256 == expected


def test_nothing_personal_is_stored(cohort: Path) -> None:
    prepare(cohort)
    for path in (cohort.parent / "store").rglob("*.json"):
        text = path.read_text()
        assert str(cohort.parent) not in text and ".nii" not in text and "p1" not in text


def test_a_second_call_skips_what_is_finished(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(cohort)
    monkeypatch.setattr(module, "read_scan", fail_to_read)
    seen: list[tuple[str, str, int, int]] = []

    def progress(outcome: ScanOutcome, done: int, total: int) -> None:
        seen.append((outcome.scan_id, outcome.status, done, total))

    report = prepare(cohort, progress=progress)
    assert (report.prepared, report.skipped) == ((), ALL)
    assert seen == [(name, "skipped", number, 4) for number, name in enumerate(ALL, 1)]


def test_only_what_changed_is_prepared_again(cohort: Path) -> None:
    prepare(cohort)
    save(chest(9)[0], cohort.parent / "1.nii")
    (cohort.parent / "store" / "scan2" / "scan.json").unlink()
    later = (cohort.parent / "3_lobes.nii").stat().st_mtime + 5
    os.utime(cohort.parent / "3_lobes.nii", (later, later))
    report = prepare(cohort)
    assert (report.prepared, report.skipped) == (("scan1", "scan2", "scan3"), ("scan0",))
    cohort.write_text(cohort.read_text().replace("0_lobes.nii", "").replace(",1\n", ",0\n"))
    assert prepare(cohort).prepared == ("scan0",)  # it lost its mask; a label is no business of the store
    assert Store(cohort.parent / "store").open("scan0").lobes is None


def test_an_interrupted_cohort_goes_on_where_it_stopped(cohort: Path) -> None:
    def stop(outcome: ScanOutcome, done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(cohort, progress=stop)
    report = prepare(cohort)
    assert (report.skipped, report.prepared) == (("scan0", "scan1"), ("scan2", "scan3"))


def test_another_configuration_needs_redo(cohort: Path) -> None:
    prepare(cohort)
    other = PrepareConfig(min_box=48, inplane_mm=6.0)
    with pytest.raises(StoreError, match="--redo"):
        prepare(cohort, other)
    assert Store(cohort.parent / "store").scan_ids() == list(ALL)
    assert prepare(cohort, other, redo=True).prepared == ALL
    scan = Store(cohort.parent / "store").open("scan0")
    assert scan.spacing_mm == pytest.approx((15.0, 6.0, 6.0))
    assert scan.lobes is not None and set(np.unique(scan.lobes)) == {0, 1, 2, 3, 4, 5}


def spoil(folder: Path) -> None:
    """One scan unreadable, one mask on another grid."""
    (folder / "1.nii").write_bytes(b"not a scan")
    save(chest()[1][:-1], folder / "3_lobes.nii")


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_scans_do_not_stop_the_others(cohort: Path, workers: int) -> None:
    spoil(cohort.parent)
    report = prepare(cohort, workers=workers)
    assert report.prepared == ("scan0", "scan2") and report.exit_code == 1
    assert set(report.failed) == {"scan1", "scan3"}
    assert "grid" in report.failed["scan3"]
    assert [outcome.scan_id for outcome in report.outcomes] == list(ALL)
    names = {path.name for path in (cohort.parent / "store").iterdir()}
    assert names == {"store.json", "scan0", "scan2"}


def test_surprises_are_failures_of_their_scan(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"0.nii": ZeroDivisionError("odd"), "1.nii": MemoryError()}
    read = module.read_scan

    def reading(path: Path, **options: object) -> object:
        if path.name in errors:
            raise errors[path.name]
        return read(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_scan", reading)
    assert prepare(cohort).failed == {"scan0": "unexpected ZeroDivisionError: odd", "scan1": "not enough memory"}


def test_a_killed_worker_is_a_failure_of_its_scan(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def dying(jobs: list[module._Job], workers: int) -> object:
        calls.append([job.row.scan_id for job in jobs])
        for job in jobs:
            if job.row.scan_id == "scan1":
                return  # what _pooled does when the pool breaks
            yield module._prepare_scan(job)

    monkeypatch.setattr(module, "_pooled", dying)
    report = prepare(cohort, workers=2)
    assert calls == [list(ALL), ["scan1"], ["scan2"], ["scan3"]]
    assert set(report.failed) == {"scan1"} and "killed" in report.failed["scan1"]


def die(_: object) -> ScanOutcome:
    os._exit(9)


def test_a_broken_pool_ends_quietly(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = read_manifest(cohort).rows[0]
    monkeypatch.setattr(module, "_prepare_scan", die)
    assert list(module._pooled([module._Job(row, cohort.parent, "")], 1)) == []


def test_a_file_that_vanished(cohort: Path) -> None:
    manifest = read_manifest(cohort)
    (cohort.parent / "2.nii").unlink()
    report = prepare_cohort(manifest, cohort.parent / "store", CONFIG)
    assert set(report.failed) == {"scan2"} and len(report.prepared) == 3


def test_masks_of_other_tools_and_their_codes_are_remembered(cohort: Path) -> None:
    lungmask = np.array([0, 3, 4, 5, 1, 2], dtype=np.uint8)  # their code for our 0-5
    for number in (0, 1, 3):
        save(lungmask[chest(number)[1]], cohort.parent / f"{number}_lobes.nii")
    assert prepare(cohort, lobe_codes="lungmask").prepared == ALL
    scan = Store(cohort.parent / "store").open("scan3")
    assert np.array_equal(scan.prepared().restore_mask(np.asarray(scan.lobes)), chest(3)[1])
    assert prepare(cohort).skipped == ALL


def test_an_empty_mask_is_a_mistake(cohort: Path) -> None:
    save(np.zeros(SHAPE, dtype=np.uint8), cohort.parent / "0_lobes.nii")
    assert "empty" in prepare(cohort).failed["scan0"]


def test_a_crop_that_loses_lobes_is_a_warning(cohort: Path) -> None:
    lobes = chest()[1]
    lobes[:, :6, :12] = 1  # far outside the body
    save(lobes, cohort.parent / "0_lobes.nii")
    first = prepare(cohort).outcomes[0]
    assert [finding.code for finding in first.warnings] == ["lobes-cropped"]
    assert Store(cohort.parent / "store").record("scan0").findings[-1].code == "lobes-cropped"


def test_the_same_image_twice_is_noticed(cohort: Path) -> None:
    shutil.copy(cohort.parent / "0.nii", cohort.parent / "2.nii")
    assert prepare(cohort).duplicates == (("scan0", "scan2"),)


def test_fingerprints(tmp_path: Path) -> None:
    series = tmp_path / "series"
    (series / "sub").mkdir(parents=True)
    for name in ("1.dcm", "sub/2.dcm"):
        (series / name).write_bytes(b"slice")
    row = ManifestRow("s", "p", series)
    first = source_fingerprint(row)
    assert first == source_fingerprint(row) == source_fingerprint(row, "lungmask")
    assert len(first) == 64
    (series / "sub" / "3.dcm").write_bytes(b"slice")
    assert source_fingerprint(row) != first
    for suffix in ("mhd", "raw"):
        (tmp_path / f"x.{suffix}").write_bytes(b"x")
    header = ManifestRow("s", "p", tmp_path / "x.mhd")
    first = source_fingerprint(header)
    (tmp_path / "x.raw").write_bytes(b"longer")
    assert source_fingerprint(header) != first
    with_mask = replace(header, lobes=tmp_path / "x.raw")
    assert source_fingerprint(with_mask) != source_fingerprint(with_mask, "lungmask") != source_fingerprint(header)


def test_an_empty_manifest_makes_an_empty_store(tmp_path: Path) -> None:
    report = prepare_cohort(Manifest(tmp_path / "m.csv", ()), tmp_path / "store", CONFIG)
    assert report.outcomes == () and report.exit_code == 0
    assert Store(tmp_path / "store").scan_ids() == []


def test_an_error_that_the_manifest_accepts_becomes_a_warning(cohort: Path) -> None:
    rows = read_manifest(cohort).rows
    hu, lobes = chest(0)
    save(np.where(lobes > 0, 40, hu).astype(np.int16), rows[0].image)  # lungs without air
    assert prepare(cohort).failed.keys() == {"scan0"}
    write_manifest([replace(rows[0], lobes=None, accept=("lungs-absent",)), *rows[1:]], cohort)
    report = prepare(cohort)
    assert report.prepared == ("scan0",) and not report.failed
    assert [
        f.code
        for f in Store(cohort.parent / "store", read_manifest(cohort).rows).record("scan0").findings
        if f.level == "warning"
    ] == ["lungs-absent"]
