from __future__ import annotations

import logging
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage, ImplicitVRLittleEndian

from m2unet.anatomy import LOBES
from m2unet.ct.volume import from_source
from m2unet.export.dicom_seg import SegReference, write_segmentation
from m2unet.export.source import Algorithm, ExportError, SeriesOptions
from tests.export.conftest import Validate
from tests.export.series import AXIAL, Case, make_case, read_case, spelled, write_series

NAMES = [lobe.abbreviation for lobe in LOBES] + ["ground_glass", "consolidation"]
COS, SIN = np.cos(np.radians(7)), np.sin(np.radians(7))


def turned(orientation: tuple[float, ...], by: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(v) for v in (np.asarray(orientation).reshape(2, 3) @ by.T).ravel())


ABOUT_X = np.array([[1, 0, 0], [0, COS, -SIN], [0, SIN, COS]])
ABOUT_Z = np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]])
OBLIQUE = turned(AXIAL, ABOUT_X @ ABOUT_Z)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])

SERIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "downwards": {"step": (0.0, 0.0, -3.0)},
    "oblique": {"orientation": OBLIQUE, "step": tuple(3 * NORMAL)},
    "oblique downwards": {"orientation": OBLIQUE, "step": tuple(-3 * NORMAL)},
    "gantry tilt": {"orientation": turned(AXIAL, ABOUT_X)},
    "prone, feet first": {"orientation": (-1, 0, 0, 0, -1, 0), "step": (0.0, 0.0, -3.0)},
    "sagittal": {"orientation": (0, 1, 0, 0, 0, -1), "step": (3.0, 0.0, 0.0)},
    "sagittal from the right": {"orientation": (0, 1, 0, 0, 0, -1), "step": (-3.0, 0.0, 0.0)},
    "coronal": {"orientation": (1, 0, 0, 0, 0, -1), "step": (0.0, 3.0, 0.0)},
    "coronal, rows upwards": {"orientation": (-1, 0, 0, 0, 0, 1), "step": (0.0, 3.0, 0.0)},
}


def write(case: Case, path: Path, **options: Any) -> SegReference:
    return write_segmentation(case.volume, case.lobes, path, opacity=case.opacity, **options)


def read_frames(dataset: Dataset, reference: SegReference) -> dict[str, NDArray[np.int64]]:
    """By source SOP instance UID, lobe code + 10 x opacity code, put together with pydicom alone."""
    weights = dict(zip(NAMES, (1, 2, 3, 4, 5, 10, 20), strict=True))
    weight_of = {number: weights[name] for name, number in reference.segments.items()}
    planes: dict[str, NDArray[np.int64]] = {}
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        weight = weight_of[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        planes.setdefault(uid, np.zeros(frame.shape, dtype=np.int64))
        planes[uid] += weight * frame.astype(np.int64)
    return planes


def assert_equals_source(case: Case, path: Path, reference: SegReference) -> None:
    found, expected = read_frames(dcmread(path), reference), case.expected()
    assert set(found) <= set(expected)
    for uid, plane in expected.items():
        np.testing.assert_array_equal(found.get(uid, np.zeros_like(plane)), plane)


@pytest.mark.parametrize("name", SERIES)
def test_every_voxel_lies_on_its_source_image(name: str, tmp_path: Path, dciodvfy: Validate) -> None:
    case = make_case(tmp_path / "ct", **SERIES[name])
    path = tmp_path / "lobes.seg.dcm"
    reference = write(case, path)
    assert list(reference.segments) == NAMES
    assert_equals_source(case, path, reference)
    assert dciodvfy(path) == []
    positions = {str(h.SOPInstanceUID): h for h in map(dcmread, case.folder.iterdir())}
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        source = positions[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.asarray(place, float), np.asarray(source.ImagePositionPatient, float), atol=1e-5)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    direction = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.asarray(direction, float), SERIES[name].get("orientation", AXIAL), atol=1e-6)
    np.testing.assert_allclose(np.asarray(shared.PixelMeasuresSequence[0].PixelSpacing, float), [0.8, 0.7])


def test_highdicom_reads_the_same_from_source_instances(case: Case, tmp_path: Path) -> None:
    reference = write(case, tmp_path / "s.dcm")
    seg = hd.seg.segread(str(tmp_path / "s.dcm"))
    uids = list(case.volume.source.header["sop_instance_uids"])
    pixels = seg.get_pixels_by_source_instance(uids, ignore_spatial_locations=True)
    in_order = case.volume.to_source(case.lobes)
    for lobe in LOBES:
        mask = pixels[..., reference.segments[lobe.abbreviation] - 1]
        np.testing.assert_array_equal(mask.astype(bool), in_order == lobe.code)


def test_says_what_where_and_by_whom(case: Case, tmp_path: Path) -> None:
    by = Algorithm("m2unet", "0.1+abc", parameters=("preset=paper",))
    reference = write(case, tmp_path / "s.dcm", algorithm=by)
    dataset = dcmread(tmp_path / "s.dcm")
    assert (dataset.SegmentationType, dataset.Modality, dataset.ContentQualification) == ("BINARY", "SEG", "RESEARCH")
    assert dataset.StudyInstanceUID == "1.2.826.0.1.5"
    assert dataset.FrameOfReferenceUID == "1.2.826.0.1.7"
    assert dataset.SeriesInstanceUID not in ("1.2.826.0.1.6", "2.25.0")
    assert dataset.SeriesNumber == 301
    assert "research use only" in dataset.SeriesDescription
    assert dataset.PatientName == "Müller^Zoë"
    assert (dataset.PatientID, dataset.PatientSex, dataset.PatientBirthDate) == ("secret-id", "F", "19500102")
    assert dataset.AccessionNumber == "A1"
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.826.0.1.6"
    types = [(s.SegmentedPropertyTypeCodeSequence[0].CodeValue, s.SegmentLabel) for s in dataset.SegmentSequence]
    assert types == [
        ("42400003", "Right upper lobe"),
        ("72481006", "Right middle lobe"),
        ("266005", "Right lower lobe"),
        ("44714003", "Left upper lobe"),
        ("41224006", "Left lower lobe"),
        ("1217294009", "Ground glass"),
        ("95436008", "Consolidation"),
    ]
    assert {s.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator for s in dataset.SegmentSequence} == {"SCT"}
    first, opacity = dataset.SegmentSequence[0], dataset.SegmentSequence[5]
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("m2unet", "0.1+abc")
    assert opacity.SegmentAlgorithmName == "m2unet opacity rule"
    assert first.TrackingID == "m2unet right upper lobe"
    assert first.TrackingUID == reference.tracking["RUL"]
    assert len({s.TrackingUID for s in dataset.SegmentSequence}) == 7
    assert (reference.sop_instance_uid, reference.series_instance_uid) == (
        dataset.SOPInstanceUID,
        dataset.SeriesInstanceUID,
    )


def shown(stored: list[int]) -> NDArray[np.float64]:
    """sRGB 0-255 that a viewer makes of a stored CIELab value: CIE 15 with the D65 white, IEC 61966-2-1."""
    lightness, a, b = stored[0] / 65535 * 100, stored[1] / 65535 * 255 - 128, stored[2] / 65535 * 255 - 128
    f = (lightness + 16) / 116 + np.array([a / 500, 0, -b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    linear = (np.linalg.inv(to_xyz) @ xyz).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_colours_are_the_lobe_tables(case: Case, tmp_path: Path) -> None:
    write(case, tmp_path / "s.dcm")
    segments = dcmread(tmp_path / "s.dcm").SegmentSequence
    for lobe, segment in zip(LOBES, segments, strict=False):
        np.testing.assert_allclose(shown(segment.RecommendedDisplayCIELabValue), lobe.colour, atol=1.5)
    assert len({tuple(segment.RecommendedDisplayCIELabValue) for segment in segments}) == 7


def test_only_what_is_there_becomes_a_segment(case: Case, tmp_path: Path) -> None:
    lobes = np.where(np.isin(case.lobes, (2, 5)), case.lobes, 0).astype(np.uint8)
    lobes[0, 0, 0] = 6
    reference = write_segmentation(case.volume, lobes, tmp_path / "s.dcm")
    assert reference.segments == {"RML": 1, "LLL": 2}
    dataset = dcmread(tmp_path / "s.dcm")
    assert dataset.SegmentsOverlap == "NO"
    np.testing.assert_array_equal(dataset.pixel_array.sum(), (lobes % 6 > 0).sum())
    assert write(case, tmp_path / "t.dcm").segments["consolidation"] == 7
    assert dcmread(tmp_path / "t.dcm").SegmentsOverlap == "YES"


def test_the_same_input_gives_the_same_file(case: Case, tmp_path: Path) -> None:
    first = write(case, tmp_path / "a.dcm")
    second = write(case, tmp_path / "b.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert first.sop_instance_uid == second.sop_instance_uid
    for uid in (first.sop_instance_uid, first.series_instance_uid, *first.tracking.values()):
        assert uid.startswith("2.25.") and len(uid) <= 64
        assert 2**100 < int(uid[5:]) < 2**128


def test_another_mask_setting_or_date_gives_another_instance(case: Case, tmp_path: Path) -> None:
    first = write(case, tmp_path / "a.dcm")
    changed = case.lobes.copy()
    changed[2, 3, 4] = 1 + changed[2, 3, 4] % 5
    other = write_segmentation(case.volume, changed, tmp_path / "b.dcm", opacity=case.opacity)
    same = [name for name in NAMES if first.tracking[name] == other.tracking[name]]
    assert 5 <= len(same) < 7 and same[-2:] == NAMES[-2:]
    named = write(case, tmp_path / "c.dcm", algorithm=Algorithm("other"))
    dated = write(case, tmp_path / "d.dcm", series=SeriesOptions(when=datetime(2024, 5, 6, 7, 8, 9)))
    assert len({r.sop_instance_uid for r in (first, other, named, dated)}) == 4
    assert len({r.series_instance_uid for r in (first, other, named, dated)}) == 4
    assert (dcmread(tmp_path / "a.dcm").ContentDate, dcmread(tmp_path / "a.dcm").ContentTime) == ("20200301", "101530")
    dataset = dcmread(tmp_path / "d.dcm")
    assert (dataset.ContentDate, dataset.ContentTime) == ("20240506", "070809")
    assert dataset.StudyDate == "20200301"


def test_series_options(case: Case, tmp_path: Path) -> None:
    write(case, tmp_path / "s.dcm", series=SeriesOptions(number=77, description="mine"))
    dataset = dcmread(tmp_path / "s.dcm")
    assert (dataset.SeriesNumber, dataset.SeriesDescription) == (77, "mine")


NEEDED = """
    SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality ImagePositionPatient PixelSpacing
    ImageOrientationPatient SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit
    PixelRepresentation RescaleSlope RescaleIntercept PixelData
"""


def bare(header: Dataset, index: int) -> None:
    """What some de-identification tools leave."""
    for element in list(header):
        if element.keyword not in NEEDED.split():
            del header[element.tag]


def malformed(header: Dataset, index: int) -> None:
    """Values that their attributes do not allow; without explicit VRs, so that the reader goes by the dictionary."""
    for name, value in (
        ("PatientSex", "female"),
        ("PatientBirthDate", "1950?"),
        ("PatientAge", "70"),
        ("PatientWeight", "heavy"),
        ("StudyDate", "UNKNOWN"),
        ("StudyTime", "10:15"),
        ("StudyID", "much longer than sixteen characters"),
        ("SeriesNumber", "three"),
    ):
        header.pop(name, None)
        header.add_new(name, "LO", value)
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


@pytest.mark.parametrize("change", [bare, malformed])
def test_poor_headers_do_no_harm(change: Any, tmp_path: Path, dciodvfy: Validate) -> None:
    case = make_case(tmp_path / "ct", change=change)
    path = tmp_path / "s.dcm"
    reference = write(case, path)
    assert dciodvfy(path) == []
    assert_equals_source(case, path, reference)
    dataset = dcmread(path)
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        assert name in dataset and not dataset.get(name)
    assert dataset.ContentDate == "19000101"
    assert dataset.FrameOfReferenceUID
    assert dataset.SeriesNumber == 9001
    assert "PatientWeight" not in dataset and "PatientAge" not in dataset


def test_text_of_any_alphabet_survives(tmp_path: Path) -> None:
    def japanese(header: Dataset, index: int) -> None:
        header.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"

    case = make_case(tmp_path / "ct", change=japanese)
    write(case, tmp_path / "s.dcm")
    dataset = dcmread(tmp_path / "s.dcm")
    assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_neither_log_nor_warning_names_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def odd(header: Dataset, index: int) -> None:
        header.PatientName = "SECRETNAME"  # highdicom warns of a name without a caret, and quotes it
        header.PatientID = "SECRET\\ID"

    case = make_case(tmp_path / "ct", change=odd)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        reference = write(case, tmp_path / "s.dcm")
    assert "SECRET" not in "".join(str(w.message) for w in caught) + caplog.text + str(reference)
    assert dcmread(tmp_path / "s.dcm").PatientName == "SECRETNAME"


def test_a_file_of_many_frames(tmp_path: Path, dciodvfy: Validate) -> None:
    path = tmp_path / "enhanced.dcm"
    values = spelled((5, 10, 9))
    order = [3, 0, 4, 1, 2]  # the file's frames are not in the order of their places
    _enhanced(values, order, path)
    case = read_case(path)
    reference = write(case, tmp_path / "s.dcm")
    assert dciodvfy(tmp_path / "s.dcm") == []
    dataset = dcmread(tmp_path / "s.dcm")
    weights = dict(zip(reference.segments.values(), (1, 2, 3, 4, 5, 10, 20), strict=True))
    planes = np.zeros(values.shape, dtype=int)
    for frame, group in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]) / 3)
        planes[place] += weights[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] * frame
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert order[int(source.ReferencedFrameNumber) - 1] == place
    np.testing.assert_array_equal(planes, values)


def _enhanced(values: NDArray[np.uint16], order: list[int], path: Path) -> None:
    """One Enhanced CT file; frame f shows the slice at place order[f]."""
    folder = path.parent / "single"
    write_series(folder, values)
    header = dcmread(folder / "001.dcm")
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    header.NumberOfFrames = len(values)
    shared, rescale = Dataset(), Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = 0, 1, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.7]
    shared.PixelMeasuresSequence[0].SliceThickness = 3
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(AXIAL)
    shared.PixelValueTransformationSequence = [rescale]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in order:
        group = Dataset()
        group.PlanePositionSequence, group.FrameContentSequence = [Dataset()], [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = [-20, -20, 3 * place]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(header, name)
    header.PixelData = values[order].astype("<u2").tobytes()
    header.save_as(path, enforce_file_format=True)


def test_refusals(case: Case, tmp_path: Path) -> None:
    nothing = np.zeros_like(case.lobes)
    with pytest.raises(ExportError, match="nothing to segment"):
        write_segmentation(case.volume, nothing, tmp_path / "s.dcm")
    with pytest.raises(ExportError, match="unknown code"):
        write_segmentation(case.volume, case.lobes, tmp_path / "s.dcm", opacity=np.full_like(nothing, 3))
    with pytest.raises(Exception, match="not on this volume's grid"):
        write_segmentation(case.volume, case.lobes[1:], tmp_path / "s.dcm")
    memory = from_source(case.volume.array, case.volume.spacing_mm)
    with pytest.raises(ExportError, match=r"read from memory.*give the DICOM series"):
        write_segmentation(memory, case.lobes, tmp_path / "s.dcm")
    assert not (tmp_path / "s.dcm").exists()


@pytest.mark.real
def test_a_real_series(real_data: Path, tmp_path: Path, dciodvfy: Validate) -> None:
    _real(real_data / "cip" / "ct-64Dicom", tmp_path, dciodvfy)


@pytest.mark.real
def test_a_real_series_in_jpeg_ls(real_data: Path, tmp_path: Path, dciodvfy: Validate) -> None:
    source = sorted((real_data / "nlst-ct-dicom").rglob("*.dcm"))
    heights = {path: float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]) for path in source}
    folder = tmp_path / "part"
    folder.mkdir()
    for path in sorted(source, key=heights.__getitem__)[60:68]:
        (folder / path.name).symlink_to(path)
    _real(folder, tmp_path, dciodvfy)


def _real(folder: Path, tmp_path: Path, dciodvfy: Validate) -> None:
    volume = read_case(folder).volume
    z, y, x = np.indices(volume.shape, sparse=True)
    lobes = ((volume.array > -950) & (volume.array < -500)) * (1 + (z + y // 3 + x // 5) % 5)
    opacity = ((volume.array > -700) & (lobes > 0)).astype(np.uint8)
    reference = write_segmentation(volume, lobes.astype(np.uint8), tmp_path / "s.dcm", opacity=opacity)
    assert dciodvfy(tmp_path / "s.dcm") == []
    found = read_frames(dcmread(tmp_path / "s.dcm"), reference)
    in_order = volume.to_source(lobes + 10 * opacity)
    for uid, plane in zip(volume.source.header["sop_instance_uids"], in_order, strict=True):
        np.testing.assert_array_equal(found.get(uid, np.zeros_like(plane)), plane)
