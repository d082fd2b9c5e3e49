"""Predicting many scans: bad ones reported, finished ones skipped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.cohort.manifest import Manifest
from m2unet.ct.identity import identify_scan
from m2unet.errors import ConfigError, ModelError, OutputError, ScanError
from m2unet.inference.predictor import Predictor
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.predict import Case, CaseOutcome, find_cases, predict_cases
from m2unet.workflows.run_folder import RunFolder
from tests.workflows.stub import StubPredictor, write_patient

PLAIN = CaseOptions(montage=False, report=False)


@pytest.fixture(scope="module")
def predictor(run: RunFolder) -> Predictor:
    return Predictor.load(run.path)


def predict(
    predictor: Predictor, paths: list[Path], out: Path, options: CaseOptions | None = None
) -> list[CaseOutcome]:
    return list(predict_cases(predictor, find_cases(paths), out, options))


def test_everything_of_a_case_is_written(predictor: Predictor, cohort: Manifest, tmp_path: Path) -> None:
    image = cohort.rows[0].image
    (outcome,) = predict(predictor, [image], tmp_path)
    assert outcome.error is None and outcome.result is not None
    written = ResultDocument.model_validate_json((outcome.folder / "result.json").read_text())
    assert written == outcome.result
    assert written.severity.probability is not None and 0 <= written.severity.probability <= 1
    assert written.model.weights_sha256 == predictor.identity.weights_sha256
    assert "Research use only" in written.notice
    assert (outcome.folder / "montage.png").read_bytes()[:4] == b"\x89PNG"
    assert written.lobes.mask is not None
    mask, scan = sitk.ReadImage(str(outcome.folder / written.lobes.mask)), sitk.ReadImage(str(image))
    assert mask.GetSize() == scan.GetSize()
    np.testing.assert_allclose(mask.GetDirection(), scan.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(mask.GetOrigin(), scan.GetOrigin(), atol=1e-3)
    counts = np.bincount(sitk.GetArrayFromImage(mask).ravel(), minlength=6)
    voxel_ml = np.prod(scan.GetSpacing()) / 1000
    for quantity in written.lobes.volumes[:5]:
        code = written.lobes.codes[quantity.region]
        if counts[code]:
            assert quantity.volume_ml == pytest.approx(counts[code] * voxel_ml, rel=1e-4)
        else:
            assert quantity.volume_ml is None and quantity.reason


def test_a_bad_scan_never_stops_the_others(predictor: Predictor, cohort: Manifest, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"not an image")
    paths = [bad, cohort.rows[0].image, tmp_path / "missing.mha"]
    outcomes = predict(predictor, paths, tmp_path / "out")
    assert [outcome.error is None for outcome in outcomes] == [False, True, False]
    assert outcomes[0].name == f"bad-{hashlib.sha256(b'not an image').hexdigest()[:8]}"
    assert [path.name for path in outcomes[0].folder.iterdir()] == ["error.json"]
    assert json.loads((outcomes[0].folder / "error.json").read_text())["error"]


def test_finished_cases_are_skipped_until_something_changed(
    predictor: Predictor, cohort: Manifest, tmp_path: Path
) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(cohort.rows[0].image.read_bytes()) if cohort.rows[0].image.suffix == ".gz" else os.link(
        cohort.rows[0].image, scan
    )
    out = tmp_path / "out"
    (first,) = predict(predictor, [scan], out)
    (second,) = predict(predictor, [scan], out)
    assert not first.skipped and second.skipped and second.result == first.result
    assert not predict(predictor, [scan], out, CaseOptions(overwrite=True))[0].skipped
    assert not predict(predictor, [scan], out, CaseOptions(seed=5))[0].skipped
    os.utime(scan, (1, 1))
    assert not predict(predictor, [scan], out, CaseOptions(seed=5))[0].skipped
    (first.folder / "result.json").write_text("{}")
    assert not predict(predictor, [scan], out, CaseOptions(seed=5))[0].skipped


def test_the_same_seed_gives_the_same_result(predictor: Predictor, cohort: Manifest) -> None:
    first, second = (predictor.predict(cohort.rows[1].image, seed=3) for _ in range(2))
    assert first.severity == second.severity
    assert first.lobes is not None and second.lobes is not None
    np.testing.assert_array_equal(first.lobes, second.lobes)


def test_cases_are_named_by_the_manifest_or_by_the_user(cohort: Manifest, tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "scan.nii.gz", tmp_path / "b" / "scan.nii", tmp_path / "series"]
    assert [case.name for case in find_cases(paths)] == [None, None, None]
    assert [case.name for case in find_cases(paths, ["x", "y", "z"])] == ["x", "y", "z"]
    assert find_cases([cohort.path]) == [Case(row.scan_id, row.image, row.lobes) for row in cohort.rows]
    assert find_cases([cohort.path, cohort.path]) == find_cases([cohort.path])
    assert find_cases(paths[:1], series="abcdef")[0].series == "abcdef"


@pytest.mark.parametrize(
    ("names", "series", "message"),
    [
        (["x"], None, "one for each scan"),
        (["x", "X"], None, "same name"),
        (["x", "a/b"], None, "cannot name a case"),
        ([], "abcdef", "one DICOM folder"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, names: list[str], series: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_cases([tmp_path / "a.nii", tmp_path / "b.nii"], names, series=series)


def test_a_manifest_names_its_scans_itself(cohort: Manifest) -> None:
    with pytest.raises(ConfigError, match="manifest"):
        find_cases([cohort.path], ["x"])


def stubbed(out: Path, paths: list[Path], *errors: BaseException | None) -> list[CaseOutcome]:
    return list(predict_cases(cast(Predictor, StubPredictor(*errors)), find_cases(paths), out, PLAIN))


def test_one_unexpected_fault_never_ends_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    letters = "ABCD"
    scans = [write_patient(tmp_path / letter, f"{letter * 5}^X", f"{letter}123") for letter in letters]
    faults = [RuntimeError("CUDA out of memory"), None, KeyError("a bug"), MemoryError()]
    outcomes = stubbed(tmp_path / "out", scans, *faults)
    assert [outcome.error for outcome in outcomes] == [
        "unexpected RuntimeError: CUDA out of memory", None, "unexpected KeyError: 'a bug'", "unexpected MemoryError"
    ]  # fmt: skip
    assert [outcome.unexpected for outcome in outcomes] == [True, False, True, True]
    assert caplog.text.count("Traceback (most recent call last)") == 3 and "in predict" in caplog.text
    for outcome in outcomes:
        if outcome.error:
            kept = (outcome.folder / "error.json").read_text()
            assert outcome.error in json.loads(kept)["error"] and "Traceback" not in kept


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    scans = [write_patient(tmp_path / letter, f"{letter * 5}^X", f"{letter}123") for letter in "AB"]
    with pytest.raises(KeyboardInterrupt):
        stubbed(tmp_path / "out", scans, None, KeyboardInterrupt())
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 1


def test_a_fault_in_writing_or_in_the_table_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [write_patient(tmp_path / letter, f"{letter * 5}^X", f"{letter}123") for letter in "AB"]

    def faulty(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("m2unet.workflows.collect.write_cohort_page", faulty)
    monkeypatch.setattr("m2unet.workflows.case.quantify", faulty)
    outcomes = stubbed(tmp_path / "out", scans)
    assert [outcome.error for outcome in outcomes] == ["unexpected ZeroDivisionError: a bug"] * 2


@pytest.mark.parametrize("place", ["file", "file/deeper", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path, place: str) -> None:
    scan = write_patient(tmp_path / "A")
    (tmp_path / "file").write_text("a file")
    stub = StubPredictor()
    with pytest.raises(OutputError, match="cannot be written"):
        list(predict_cases(cast(Predictor, stub), find_cases([scan]), tmp_path / place, PLAIN))
    assert stub.predicted == 0


def text_of(out: Path) -> dict[str, str]:
    """What a folder of results shows, but for the DICOM objects, which belong to the patient, and the local list."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes().decode("utf-8", "replace")
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".dcm" and path.name != "sources.csv" and "assets" not in path.parts
    }


NAMES = ("MUSTERFRAU", "ERIKA", "4711", "19640812", "1964-08-12")


def shows_name(text: str) -> bool:
    return any(name in text.upper() for name in NAMES[:2]) or any(name in text for name in NAMES[3:])


@pytest.mark.parametrize("fault", [None, RuntimeError("no memory for /pacs/MUSTERFRAU_ERIKA_19640812/IM1 of Erika")])
def test_names_of_patients_stay_inside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Exception | None
) -> None:
    scan = write_patient(tmp_path / "MUSTERFRAU_ERIKA_19640812")
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        (outcome,) = predict_cases(cast(Predictor, StubPredictor(fault)), find_cases([scan]), out, CaseOptions())
    assert outcome.renamed and outcome.name == f"scan-{identify_scan(scan).short}"
    shown = text_of(out)
    assert shown and not [name for name, text in shown.items() if shows_name(name) or shows_name(text)]
    assert not shows_name(caplog.text) and not shows_name(str(outcome.error))
    assert str(scan) in (out / "sources.csv").read_text()


def test_errors_of_a_mask_do_not_name_its_file(tmp_path: Path) -> None:
    scan, mask = write_patient(tmp_path / "CT"), tmp_path / "musterfrau_lobes.nii.gz"
    error = ScanError(f"The lobe mask {mask.name} cannot be read", found=f"{mask}: no such file")
    case = Case(None, scan, mask)
    (outcome,) = predict_cases(cast(Predictor, StubPredictor(error)), [case], tmp_path / "out", PLAIN)
    assert outcome.error is not None and not shows_name(outcome.error) and "lobe mask" in outcome.error


def test_names_stay_when_they_were_asked_for(tmp_path: Path) -> None:
    scan = write_patient(tmp_path / "MUSTERFRAU_ERIKA_19640812")
    options = CaseOptions(identify=True, montage=False)
    (outcome,) = predict_cases(cast(Predictor, StubPredictor()), find_cases([scan]), tmp_path / "out", options)
    assert not outcome.renamed and outcome.name.startswith("MUSTERFRAU_ERIKA_19640812-")
    assert "MUSTERFRAU, ERIKA" in (outcome.folder / "report.html").read_text()


def test_every_page_says_of_which_scan_it_is(tmp_path: Path) -> None:
    scan = write_patient(tmp_path / "CT")
    (outcome,) = predict_cases(cast(Predictor, StubPredictor()), find_cases([scan]), tmp_path / "out", CaseOptions())
    digest = identify_scan(scan).digest
    assert outcome.result is not None and outcome.result.scan.digest == digest
    for name in ("report.html", "viewer.html", "result.json"):
        assert digest in (outcome.folder / name).read_text()


def test_a_run_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no trained model here"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_masks_in_the_format_asked_for(predictor: Predictor, cohort: Manifest, tmp_path: Path, ending: str) -> None:
    (outcome,) = predict(predictor, [cohort.rows[0].image], tmp_path, CaseOptions(mask_format=ending, montage=False))
    assert outcome.result is not None and outcome.result.lobes.mask == f"lobes{ending}"
    assert sitk.ReadImage(str(outcome.folder / f"lobes{ending}")).GetSize()
    assert outcome.result.montage is None


@pytest.mark.real
def test_real_scans_run(predictor: Predictor, real_data: Path, tmp_path: Path) -> None:
    paths = [real_data / "nlst-ct-dicom", real_data / "cip" / "ct-64.nrrd"]
    outcomes = predict(predictor, paths, tmp_path)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [outcome.name.rsplit("-", 1)[0] for outcome in outcomes] == ["nlst-ct-dicom", "ct-64"]
    assert (outcomes[1].folder / "lobes.nrrd").is_file()
    nlst = sitk.ReadImage(str(outcomes[0].folder / "lobes.nii.gz"))
    assert nlst.GetSize() == (512, 512, 143)
