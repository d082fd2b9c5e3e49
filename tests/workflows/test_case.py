"""What is written for one predicted case."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread, dcmwrite

from m2unet.ct.findings import QualityError
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.inference.postprocess import PostprocessConfig
from m2unet.inference.predictor import Prediction
from m2unet.report.identity import Identity, read_identity
from m2unet.report.result import ResultDocument
from m2unet.workflows.case import CaseEvidence, CaseOptions, write_case

from ..report.conftest import make_prediction

OFF = CaseOptions(montage=False, report=False)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return make_prediction()


@pytest.fixture(scope="module")
def whole(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ResultDocument]:
    """A case with everything."""
    folder = tmp_path_factory.mktemp("out") / "one"
    assert prediction.lobes is not None
    stray = prediction.lobes.copy()
    stray[0, 0, :3] = 2
    return folder, write_case(replace(prediction, lobes=stray), "one", folder)


def test_every_file_named_is_there_and_nothing_else(whole: tuple[Path, ResultDocument]) -> None:
    folder, document = whole
    assert set(document.files) == {"lobes", "opacity", "montage", "thumbnail", "report", "viewer", "viewer_data"}
    assert {p.name for p in folder.iterdir()} == {*document.files.values(), "result.json"}
    assert {p.name for p in (folder.parent / "assets").iterdir()} == {"niivue.umd.js", "niivue.LICENSE.txt"}


def test_the_result_on_disk_is_the_one_returned(whole: tuple[Path, ResultDocument]) -> None:
    folder, document = whole
    assert ResultDocument.model_validate_json((folder / "result.json").read_text(encoding="utf-8")) == document
    ResultDocument.model_json_schema()


def test_postprocessing_is_done_and_stated(whole: tuple[Path, ResultDocument], prediction: Prediction) -> None:
    folder, document = whole
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / document.files["lobes"])))
    assert not mask[0, 0, :3].any()
    removed = next(step for step in document.lobes.postprocessing if step.name == "islands-removed")
    voxel_ml = prediction.volume.voxel_ml
    assert removed.voxels >= 3 and removed.change_ml["RML"] <= -3 * voxel_ml + 1e-9
    assert document.settings["postprocess"]["keep_share"] == PostprocessConfig().keep_share


def test_quantities_agree_with_the_masks_written(whole: tuple[Path, ResultDocument], prediction: Prediction) -> None:
    folder, document = whole
    lobes, opacity = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / document.files[name]))) for name in ("lobes", "opacity")
    )
    hu = np.clip(prediction.volume.array, -1100, 400)
    for part in document.lobes.volumes[:5]:
        inside = lobes == document.lobes.codes[part.region]
        assert part.volume_ml == pytest.approx(inside.sum() * prediction.volume.voxel_ml, rel=1e-6)
        assert part.mean_hu == pytest.approx(hu[inside].mean(), abs=1e-6)
        assert part.opacity_percent == pytest.approx(100 * np.mean(opacity[inside] > 0), abs=1e-6)
    assert document.lobes.opacity_codes == {"ground glass": 1, "consolidation": 2}
    assert len(document.lobes.regions) == 20 and {s.highest for s in document.lobes.scores} == {40, 25}


def test_severity_has_its_spread_and_is_not_called_calibrated(whole: tuple[Path, ResultDocument]) -> None:
    severity = whole[1].severity
    assert (severity.probability, severity.spread, severity.low, severity.high) == (0.8, 0.05, 0.75, 0.85)
    assert not severity.calibrated and "not calibrated" in severity.calibration


def test_a_model_of_phantoms_is_flagged(whole: tuple[Path, ResultDocument], tmp_path: Path) -> None:
    assert whole[1].warnings == ("Trained on digital phantoms; not for patients.",)
    other = write_case(make_prediction(trained_on="300 scans of two hospitals"), "x", tmp_path / "x", OFF)
    assert other.warnings == ()


def test_an_absent_lobe_is_null_with_a_reason(prediction: Prediction, tmp_path: Path) -> None:
    assert prediction.lobes is not None
    lobes = np.where(prediction.lobes == 2, 0, prediction.lobes).astype(np.uint8)
    lobes[:, :, :85] = np.where(lobes[:, :, :85] > 0, lobes[:, :, :85], 0)
    document = write_case(replace(prediction, lobes=lobes), "x", tmp_path / "x", OFF)
    part = document.lobes.region("RML")
    assert part is not None and part.volume_ml is None and part.opacity_percent is None and part.reason
    assert document.lobes.region("lungs").partial  # type: ignore[union-attr]
    score = document.lobes.score("lobar-ct-score")
    assert score is not None and score.total is None and score.reason and score.most == score.least + 5


def test_a_lobe_at_the_edge_of_the_scan_is_cut(prediction: Prediction, tmp_path: Path) -> None:
    volume, lobes = prediction.volume, prediction.lobes
    assert lobes is not None
    cut = Volume(
        np.ascontiguousarray(volume.array[20:]),
        volume.spacing_mm,
        volume.origin_mm,
        volume.direction,
        replace(volume.source, shape=(volume.shape[0] - 20, *volume.shape[1:])),
    )
    document = write_case(replace(prediction, volume=cut, lobes=lobes[20:].copy()), "x", tmp_path / "x", OFF)
    part = document.lobes.region("LLL")
    assert part is not None and part.partial and part.cut == ("feet end",) and "feet end" in (part.reason or "")


def test_without_lobes_there_is_severity_and_a_picture(prediction: Prediction, tmp_path: Path) -> None:
    document = write_case(replace(prediction, lobes=None), "x", tmp_path / "x")
    assert document.lobes.mask is None and document.lobes.reason == "the model does not segment lobes"
    assert set(document.files) == {"montage", "thumbnail", "report", "viewer", "viewer_data"}
    assert '"id": "ct"' in (tmp_path / "x" / "viewer_data.js").read_text()[:200]


def test_without_severity_the_lobes_are_measured(prediction: Prediction, tmp_path: Path) -> None:
    document = write_case(replace(prediction, severity=None), "x", tmp_path / "x", OFF)
    assert document.severity.probability is None and document.severity.reason
    assert document.lobes.region("lungs").volume_ml  # type: ignore[union-attr]


def test_files_of_an_earlier_call_do_not_stay(prediction: Prediction, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_case(prediction, "x", folder)
    (folder / "error.json").write_text("{}")
    document = write_case(prediction, "x", folder, CaseOptions(mask_format=".mha", montage=False, report=False))
    assert set(document.files.values()) == {"lobes.mha", "opacity.mha"}
    assert {p.name for p in folder.iterdir()} == {"lobes.mha", "opacity.mha", "result.json"}


def test_exporters_add_files(prediction: Prediction, tmp_path: Path) -> None:
    def export(evidence: CaseEvidence, folder: Path) -> dict[str, str]:
        assert evidence.quantities is not None and evidence.prediction.lobes is not None
        (folder / "extra.txt").write_text(evidence.name)
        return {"extra": "extra.txt"}

    options = CaseOptions(report=True, montage=False, exporters=(export,))
    document = write_case(prediction, "x", tmp_path / "x", options)
    assert document.files["extra"] == "extra.txt"
    assert "extra.txt" in (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    assert document.exporters == ("export",) and options.satisfied_by(document)
    assert CaseOptions(montage=False).satisfied_by(document)
    plain = write_case(prediction, "x", tmp_path / "x", OFF)
    assert not (tmp_path / "x" / "extra.txt").exists() and not replace(OFF, exporters=(export,)).satisfied_by(plain)


def test_a_kept_case_satisfies_only_what_it_was_made_for(whole: tuple[Path, ResultDocument]) -> None:
    kept = whole[1]
    assert CaseOptions().satisfied_by(kept) and CaseOptions(montage=False, report=False).satisfied_by(kept)
    assert not CaseOptions(seed=1).satisfied_by(kept)
    assert not CaseOptions(identify=True).satisfied_by(kept)
    assert not CaseOptions(postprocess=PostprocessConfig(fill_holes=False)).satisfied_by(kept)
    bare = kept.model_copy(update={"files": {"lobes": "lobes.nii.gz"}})
    assert not CaseOptions().satisfied_by(bare) and OFF.satisfied_by(bare)
    assert not OFF.satisfied_by(kept.model_copy(update={"identified": True}))


@pytest.fixture
def named(real_data: Path, tmp_path: Path) -> Path:
    """The small DICOM series with a patient's name of our own making."""
    folder = tmp_path / "dicom"
    folder.mkdir()
    for path in sorted((real_data / "cip" / "ct-64Dicom").iterdir()):
        header = dcmread(path)
        header.PatientName, header.PatientID, header.PatientBirthDate = (
            "Featherstone^Wilhelmina",
            "PID-47110815",
            "19500201",
        )
        dcmwrite(folder / path.name, header)
    return folder


@pytest.mark.real
def test_who_the_patient_is_shows_only_when_asked_for(named: Path, prediction: Prediction, tmp_path: Path) -> None:
    volume = read_scan(named)
    found = replace(prediction, volume=volume, lobes=None)
    plain = write_case(found, "x", tmp_path / "plain")
    for path in (tmp_path / "plain").iterdir():
        content = path.read_bytes()
        assert not any(
            word in content for word in (b"Featherstone", b"Wilhelmina", b"PID-47110815", b"19500201", b"1950-02-01")
        ), path.name
    asked = write_case(found, "x", tmp_path / "asked", CaseOptions(identify=True))
    assert asked.identified and not plain.identified
    page = (tmp_path / "asked" / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in ("Featherstone, Wilhelmina", "PID-47110815", "1950-02-01"))
    assert "Featherstone" not in json.dumps(asked.model_dump())


def test_a_scan_without_headers_has_no_identity(prediction: Prediction, tmp_path: Path) -> None:
    assert read_identity(prediction.volume) == Identity()
    source = replace(prediction.volume.source, header={"files": (str(tmp_path / "gone.dcm"),)})
    assert read_identity(replace(prediction.volume, source=source)) == Identity()


def test_lobes_that_cannot_be_are_marked_in_result_report_and_view(prediction: Prediction, tmp_path: Path) -> None:
    assert prediction.lobes is not None
    wrong = np.array([0, 4, 4, 5, 1, 3, 6], np.uint8)[prediction.lobes]  # every lobe on the other side
    document = write_case(replace(prediction, lobes=wrong), "swapped", tmp_path / "swapped")
    found = {f.code: f for f in document.findings}
    assert found["lobe-side"].level == "warning" and "mm to the patient's left of" in found["lobe-side"].found
    assert found["lobe-missing"].mend
    for page in ("report.html", "viewer.html"):
        text = (tmp_path / "swapped" / page).read_text(encoding="utf-8")
        assert "lobe-side" in text and "patient&#39;s left of" in text and found["lobe-side"].mend[1:] in text


def test_no_lobe_at_all_fails_unless_accepted(prediction: Prediction, tmp_path: Path) -> None:
    assert prediction.lobes is not None
    empty = replace(prediction, lobes=np.zeros_like(prediction.lobes))
    with pytest.raises(QualityError, match="lobes-absent"):
        write_case(empty, "empty", tmp_path / "empty", OFF)
    assert not (tmp_path / "empty" / "result.json").exists()
    accepting = replace(OFF, accept=("lobes-absent",))
    document = write_case(empty, "empty", tmp_path / "empty", accepting)
    assert ("lobes-absent", "warning") in {(f.code, f.level) for f in document.findings}
    assert document.settings["accept"] == ["lobes-absent"] and "accept" not in OFF.settings()
    assert accepting.satisfied_by(document) and not OFF.satisfied_by(document)
