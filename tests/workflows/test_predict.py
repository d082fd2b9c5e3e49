"""Predicting many scans: bad ones reported, finished ones skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.cohort.manifest import Manifest
from m2unet.errors import ModelError
from m2unet.inference.predictor import Predictor
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseOptions
from m2unet.workflows.predict import Case, CaseOutcome, find_cases, predict_cases
from m2unet.workflows.run_folder import RunFolder


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
    assert json.loads((tmp_path / "out" / "bad" / "error.json").read_text())["error"]
    assert not (tmp_path / "out" / "bad" / "result.json").exists()


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
    (out / "scan" / "result.json").write_text("{}")
    assert not predict(predictor, [scan], out, CaseOptions(seed=5))[0].skipped


def test_the_same_seed_gives_the_same_result(predictor: Predictor, cohort: Manifest) -> None:
    first, second = (predictor.predict(cohort.rows[1].image, seed=3) for _ in range(2))
    assert first.severity == second.severity
    assert first.lobes is not None and second.lobes is not None
    np.testing.assert_array_equal(first.lobes, second.lobes)


def test_cases_get_names_of_their_own(cohort: Manifest, tmp_path: Path) -> None:
    cases = find_cases([tmp_path / "a" / "scan.nii.gz", tmp_path / "b" / "scan.nii", tmp_path / "series"])
    assert [case.name for case in cases] == ["scan", "scan_2", "series"]
    assert find_cases([cohort.path]) == [Case(row.scan_id, row.image, row.lobes) for row in cohort.rows]


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
    assert (tmp_path / "ct-64" / "lobes.nrrd").is_file()
    nlst = sitk.ReadImage(str(tmp_path / "nlst-ct-dicom" / "lobes.nii.gz"))
    assert nlst.GetSize() == (512, 512, 143)
