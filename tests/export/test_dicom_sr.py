from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ComprehensiveSRStorage

from m2unet.anatomy import LOBES
from m2unet.export.dicom_seg import SegReference, write_segmentation
from m2unet.export.dicom_sr import write_report
from m2unet.export.source import Algorithm, ExportError, SeriesOptions
from m2unet.export.sr_content import PartMeasurements, ReportContent, ScoreMeasurement, SeverityMeasurement
from tests.export.conftest import Validate
from tests.export.series import Case, make_case
from tests.export.test_dicom_seg import bare, malformed

CUT = "runs out of the field of view at the feet end"
CONTENT = ReportContent(
    parts=(
        *(
            PartMeasurements(lobe.abbreviation, 800.5 + lobe.code, 3.25 * lobe.code, -801.125 + lobe.code)
            for lobe in LOBES[:4]
        ),
        PartMeasurements("LLL", 700.0, None, -650.0, partial=True, reason=CUT),
        PartMeasurements("lungs", 4000.0, 1.0, -700.0),
        PartMeasurements("ground_glass", 12.5),
        PartMeasurements("consolidation", 0.0),
    ),
    scores=(ScoreMeasurement("ct-severity-score", 12), ScoreMeasurement("lobar-ct-score", 0)),
    severity=SeverityMeasurement(0.73, 0.05, 10),
    comments=("warning: slices stacked at 12.0 degrees to their normal",),
    model=Algorithm("m2unet", "0.1+abc", parameters=("preset=paper",)),
    measured_by=Algorithm("m2unet opacity rule", "0.1"),
)


@pytest.fixture
def seg(case: Case, tmp_path: Path) -> SegReference:
    return write_segmentation(case.volume, case.lobes, tmp_path / "lobes.seg.dcm", opacity=case.opacity)


def figures(item: Dataset) -> dict[tuple[str, str | None], float]:
    """By concept and derivation, the numbers directly inside a group."""
    found = {}
    for child in item.ContentSequence:
        if child.ValueType == "NUM":
            inner = [c for c in child.get("ContentSequence", []) if c.ConceptNameCodeSequence[0].CodeValue == "121401"]
            derivation = inner[0].ConceptCodeSequence[0].CodeMeaning if inner else None
            measured = child.MeasuredValueSequence[0]
            value = float(measured.get("FloatingPointValue", measured.NumericValue))
            found[child.ConceptNameCodeSequence[0].CodeValue, derivation] = value
    return found


def texts(item: Dataset) -> list[str]:
    return [
        child.TextValue
        for child in item.ContentSequence
        if child.ValueType == "TEXT" and child.ConceptNameCodeSequence[0].CodeValue == "121106"
    ]


def groups(dataset: Dataset) -> dict[str, Dataset]:
    """Measurement groups by tracking identifier."""
    root = next(c for c in dataset.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010")
    return {
        next(c.TextValue for c in group.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "112039"): group
        for group in root.ContentSequence
    }


def codes_in(item: Dataset, concept: str) -> list[str]:
    return [
        child.ConceptCodeSequence[0].CodeValue
        for child in item.ContentSequence
        if child.ValueType == "CODE" and child.ConceptNameCodeSequence[0].CodeValue == concept
    ]


def test_numbers_sites_and_references(case: Case, seg: SegReference, tmp_path: Path, dciodvfy: Validate) -> None:
    path = tmp_path / "report.sr.dcm"
    uid = write_report(case.volume, CONTENT, path, seg=seg)
    assert dciodvfy(path) == []
    dataset = dcmread(path)
    assert (dataset.SOPInstanceUID, dataset.SOPClassUID) == (uid, ComprehensiveSRStorage)
    assert dataset.StudyInstanceUID == "1.2.826.0.1.5"
    assert dataset.SeriesInstanceUID not in ("1.2.826.0.1.6", seg.series_instance_uid)
    assert (dataset.PatientName, dataset.SeriesNumber) == ("Müller^Zoë", 302)
    assert (dataset.CompletionFlag, dataset.VerificationFlag, dataset.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99M2UNET"
    found = groups(dataset)
    assert len(found) == 1 + 2 + 8 + 1
    for lobe in LOBES[:4]:
        group = found[f"m2unet {lobe.name}"]
        assert figures(group) == {
            ("118565006", None): 800.5 + lobe.code,
            ("OPACITY_PERCENT", None): 3.25 * lobe.code,
            ("112031", "Mean"): -801.125 + lobe.code,
        }
        assert codes_in(group, "363698007") == [lobe.snomed_ct]
        assert codes_in(group, "121071") == [lobe.snomed_ct]
        image = next(c for c in group.ContentSequence if c.ValueType == "IMAGE").ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == seg.sop_instance_uid
        assert image.ReferencedSegmentNumber == lobe.code
    assert figures(found["m2unet severity"]) == {("P_SEVERE", "Mean"): 0.73, ("P_SEVERE", "Standard Deviation"): 0.05}
    assert "Research use only" in texts(found["m2unet severity"])[0]
    assert figures(found["m2unet ct severity score"]) == {("CT_SEVERITY_0_40", None): 12}
    assert figures(found["m2unet lobar ct score"]) == {("LOBAR_SCORE_0_25", None): 0}
    assert figures(found["m2unet consolidation"]) == {("118565006", None): 0.0}
    assert codes_in(found["m2unet ground glass"], "121071") == ["1217294009"]
    assert texts(found["m2unet remarks"]) == list(CONTENT.comments)


def test_evidence_and_library_hold_every_source_image_and_the_segmentation(
    case: Case, seg: SegReference, tmp_path: Path
) -> None:
    write_report(case.volume, CONTENT, tmp_path / "r.dcm", seg=seg)
    dataset = dcmread(tmp_path / "r.dcm")
    evidence = dataset.CurrentRequestedProcedureEvidenceSequence
    assert [study.StudyInstanceUID for study in evidence] == ["1.2.826.0.1.5"]
    by_series = {
        s.SeriesInstanceUID: {i.ReferencedSOPInstanceUID for i in s.ReferencedSOPSequence}
        for s in evidence[0].ReferencedSeriesSequence
    }
    uids = set(case.volume.source.header["sop_instance_uids"])
    assert by_series == {"1.2.826.0.1.6": uids, seg.series_instance_uid: {seg.sop_instance_uid}}
    library = next(c for c in dataset.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "111028")
    images = [c for c in library.ContentSequence[0].ContentSequence if c.ValueType == "IMAGE"]
    assert {image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in images} == uids


def test_highdicom_reads_it_as_a_measurement_report(case: Case, seg: SegReference, tmp_path: Path) -> None:
    write_report(case.volume, CONTENT, tmp_path / "r.dcm", seg=seg)
    report = hd.sr.srread(str(tmp_path / "r.dcm")).content
    regions = report.get_volumetric_roi_measurement_groups()
    assert {group.tracking_uid for group in regions} == {
        seg.tracking[name] for name in (*(lobe.abbreviation for lobe in LOBES), "ground_glass", "consolidation")
    }
    volumes = regions[0].get_measurements(name=hd.sr.CodedConcept("118565006", "SCT", "Volume"))
    assert (volumes[0].value, volumes[0].unit.value) == (801.5, "ml")
    device = report.get_observer_contexts()[0].observer_identifying_attributes
    assert (device.name, device.model_name, device.serial_number) == ("m2unet", "m2unet", "0.1+abc")


def test_missing_figures_are_left_out_and_explained(case: Case, seg: SegReference, tmp_path: Path) -> None:
    content = ReportContent(
        parts=(
            PartMeasurements("RML", reason="the lobe is absent from the mask"),
            *CONTENT.parts[4:5],
        ),
        scores=(ScoreMeasurement("lobar-ct-score", None, "no score for RML; it lies between 3 and 8"),),
    )
    write_report(case.volume, content, tmp_path / "r.dcm", seg=seg)
    found = groups(dcmread(tmp_path / "r.dcm"))
    assert set(found) == {"m2unet right middle lobe", "m2unet left lower lobe", "m2unet lobar ct score"}
    absent, cut, score = (
        found["m2unet right middle lobe"],
        found["m2unet left lower lobe"],
        found["m2unet lobar ct score"],
    )
    assert figures(absent) == {} and texts(absent) == ["the lobe is absent from the mask"]
    assert figures(score) == {} and texts(score) == ["no score for RML; it lies between 3 and 8"]
    assert set(figures(cut)) == {("118565006", None), ("112031", "Mean")}
    assert codes_in(cut, "COMPLETENESS") == ["INCOMPLETE"] and texts(cut) == [CUT]
    assert codes_in(absent, "COMPLETENESS") == []


def test_without_segmentation_sites_say_where(case: Case, tmp_path: Path, dciodvfy: Validate) -> None:
    write_report(case.volume, CONTENT, tmp_path / "r.dcm")
    assert dciodvfy(tmp_path / "r.dcm") == []
    dataset = dcmread(tmp_path / "r.dcm")
    found = groups(dataset)["m2unet right upper lobe"]
    assert codes_in(found, "363698007") == ["42400003"]
    assert found.ContentTemplateSequence[0].TemplateIdentifier == "1501"


def test_a_single_bag_has_no_spread(case: Case, tmp_path: Path) -> None:
    content = ReportContent(severity=SeverityMeasurement(0.5))
    write_report(case.volume, content, tmp_path / "r.dcm")
    assert figures(groups(dcmread(tmp_path / "r.dcm"))["m2unet severity"]) == {("P_SEVERE", None): 0.5}


def test_the_same_content_gives_the_same_file(case: Case, seg: SegReference, tmp_path: Path) -> None:
    uids = [write_report(case.volume, CONTENT, tmp_path / name, seg=seg) for name in ("a.dcm", "b.dcm")]
    assert uids[0] == uids[1]
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    when = SeriesOptions(when=datetime(2024, 1, 2, 3, 4, 5), number=9, description="mine")
    other = write_report(case.volume, CONTENT, tmp_path / "c.dcm", seg=seg, series=when)
    dataset = dcmread(tmp_path / "c.dcm")
    assert other != uids[0]
    assert (dataset.ContentDate, dataset.SeriesNumber, dataset.SeriesDescription) == ("20240102", 9, "mine")


@pytest.mark.parametrize("change", [bare, malformed])
def test_poor_headers_do_no_harm(change: Any, tmp_path: Path, dciodvfy: Validate) -> None:
    case = make_case(tmp_path / "ct", change=change)
    seg = write_segmentation(case.volume, case.lobes, tmp_path / "s.dcm")
    write_report(case.volume, CONTENT, tmp_path / "r.dcm", seg=seg)
    assert dciodvfy(tmp_path / "r.dcm") == []


def test_refusals(case: Case, seg: SegReference, tmp_path: Path) -> None:
    path = tmp_path / "r.dcm"
    with pytest.raises(ExportError, match="nothing to report"):
        write_report(case.volume, ReportContent(comments=("hello",)), path)
    with pytest.raises(ExportError, match="part of the report is unknown"):
        write_report(case.volume, ReportContent(parts=(PartMeasurements("spleen", 1.0),)), path)
    with pytest.raises(ExportError, match="score is unknown"):
        write_report(case.volume, ReportContent(scores=(ScoreMeasurement("apgar", 9),)), path)
    other = SegReference(seg.path, "1.2.3", "1.2.4", "1.2.5", seg.segments, seg.tracking)
    with pytest.raises(ExportError, match="another study"):
        write_report(case.volume, CONTENT, path, seg=other)
    assert not path.exists()
