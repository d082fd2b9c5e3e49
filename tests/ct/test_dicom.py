"""DICOM series: geometry, values, compression, and every fault of a stack."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset, Sequence, dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from m2unet.ct.dicom import read_dicom
from m2unet.ct.dicom_files import read_contents
from m2unet.ct.dicom_pixels import read_plane, read_voxels
from m2unet.ct.findings import QualityError
from m2unet.ct.read import load, read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import MissingExtraError
from tests.ct.samples import chest, slice_header, write_series

CHEST = chest()


def codes(path: Path) -> dict[str, str]:
    return {found.code: found.level for found in load(path).findings}


def test_a_series_agrees_with_simpleitk(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST)
    volume = read_scan(tmp_path)
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(files)
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    assert volume.spacing_mm == pytest.approx(image.GetSpacing()[::-1])
    assert volume.origin_mm == pytest.approx(image.GetOrigin())
    assert np.allclose(volume.direction.ravel(), image.GetDirection())
    assert [f for f in volume.findings if f.level != "note"] == []


def test_the_header_keeps_what_exports_need(tmp_path: Path) -> None:
    paths = write_series(tmp_path, CHEST[::-1].copy(), step=(0, 0, -10.0), origin=(-200.0, -150.0, 0.0))
    header = read_scan(tmp_path).source.header
    assert header["files"] == tuple(str(path) for path in reversed(paths))
    assert header["sop_instance_uids"] == tuple(f"1.2.3.4.1.{n}" for n in range(len(CHEST), 0, -1))
    assert (header["series_instance_uid"], header["frame_of_reference_uid"]) == ("1.2.3.4.1", "1.2.3.9")
    assert (header["manufacturer"], header["kernel"], header["slice_thickness_mm"]) == ("Maker", "STANDARD", 10.0)
    assert header["kvp"] is None and set(header["frames"]) == {None}


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_compressed_slices(tmp_path: Path, syntax: str) -> None:
    def compress(header: Dataset, _: int) -> None:
        header.compress(syntax, generate_instance_uid=False)

    write_series(tmp_path, CHEST[:12], change=compress)
    assert dcmread(next(tmp_path.iterdir())).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_scan(tmp_path).array, CHEST[:12])


def test_jpeg_lossless(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    packed.mkdir()
    for path in write_series(plain, CHEST[:12]):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(packed / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    assert dcmread(next(packed.iterdir())).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    assert np.array_equal(read_scan(packed).array, CHEST[:12])


def test_a_missing_decoder_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    def compress(header: Dataset, _: int) -> None:
        header.compress(JPEGLSLossless, generate_instance_uid=False)

    write_series(tmp_path, CHEST[:12], change=compress)
    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    with pytest.raises(MissingExtraError, match=r"m2unet\[dicom\]"):
        read_scan(tmp_path)


def test_slope_and_intercept_are_each_slices_own(tmp_path: Path) -> None:
    def change(header: Dataset, index: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = (2, -1024 - index) if index % 2 else (1, -1000)

    write_series(tmp_path, CHEST, change=change)
    expected = CHEST.astype(int) + 1024
    odd = np.arange(len(CHEST)) % 2 == 1
    expected[odd] = expected[odd] * 2 - 1024 - np.arange(len(CHEST))[odd, None, None]
    expected[~odd] -= 1000
    assert np.array_equal(read_dicom(tmp_path).array, expected)


def test_a_fractional_slope_is_rounded_only_at_the_end(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = "0.37", "-1023.6"

    write_series(tmp_path, CHEST, change=change)
    expected = np.rint((CHEST.astype(np.float64) + 1024) * 0.37 - 1023.6)
    assert np.abs(read_dicom(tmp_path).array - expected).max() <= 0.501


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
def test_padding_becomes_air(tmp_path: Path, padding: int) -> None:
    array = CHEST.copy()
    array[:, :5], array[:, -5:] = padding, padding

    def change(header: Dataset, index: int) -> None:
        header.PixelRepresentation, header.RescaleIntercept = 1, 0
        header.PixelData = array[index].astype("<i2").tobytes()

    write_series(tmp_path, array, change=change)
    volume = read_scan(tmp_path)
    assert (volume.array[:, :5] == -1024).all() and volume.array.min() == -1024
    assert "padding" in {f.code for f in volume.findings}


def test_declared_padding_within_the_scale_becomes_air_only_where_corners_are_padded(tmp_path: Path) -> None:
    array = CHEST.copy()
    array[:, :5], array[:, -5:] = 63, 63

    def change(header: Dataset, _: int) -> None:
        header.add_new("PixelPaddingValue", "US", 63 + 1024)

    write_series(tmp_path / "a", array, change=change)
    assert (read_scan(tmp_path / "a").array[:, :5] == -1024).all()
    write_series(tmp_path / "b", CHEST, change=change)
    assert np.array_equal(read_scan(tmp_path / "b").array, CHEST)


def _orientations() -> list[tuple[str, NDArray[np.float64]]]:
    x, y, z = np.eye(3)
    return [
        ("prone", np.concatenate([-x, -y])),
        ("feet first", np.concatenate([-x, y])),
        ("coronal", np.concatenate([x, -z])),
        ("sagittal", np.concatenate([y, -z])),
    ]


@pytest.mark.parametrize(("name", "axes"), _orientations())
def test_any_orientation_ends_up_in_lps(tmp_path: Path, name: str, axes: NDArray[np.float64]) -> None:
    """The same body, cut along other axes, comes back to the same array."""
    small = chest((20, 48, 56), (10.0, 8.0, 8.0))
    normal = np.cross(axes[:3], axes[3:])
    frame = np.stack([axes[:3], axes[3:], normal])  # rows: directions of i, j, k
    order = np.abs(frame).argmax(axis=1)  # patient axis of i, j, k
    source = small.transpose([2 - order[2], 2 - order[1], 2 - order[0]])
    flips = [a for a, row in ((0, frame[2]), (1, frame[1]), (2, frame[0])) if row.sum() < 0]
    source = np.flip(source, flips)
    spacing = np.array([8.0, 8.0, 10.0])[order]  # i, j, k
    write_series(tmp_path, source, (spacing[2], spacing[1], spacing[0]), orientation=axes, step=normal * spacing[2])
    volume = read_scan(tmp_path)
    assert np.array_equal(volume.array, small), name
    assert volume.spacing_mm == pytest.approx((10.0, 8.0, 8.0))
    assert np.allclose(volume.direction, np.eye(3))
    assert np.array_equal(volume.to_source(volume.array), source)  # slices by their place along the normal
    assert ("non-axial" in codes(tmp_path)) == (name in ("coronal", "sagittal"))


def test_a_tilted_gantry_is_kept_with_its_true_geometry(tmp_path: Path) -> None:
    angle = np.deg2rad(15.0)
    axes = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    write_series(tmp_path, CHEST, orientation=axes, step=(0, 0, 10.0))
    volume = read_scan(tmp_path)
    warning = next(f for f in volume.findings if f.code == "gantry-tilt")
    assert warning.level == "warning" and "15.0" in warning.found
    assert np.array_equal(volume.array, CHEST)
    index = np.array([7.0, 11.0, 13.0])  # x, y, z
    expected = np.array([-200, -150, -300]) + index[0] * 4 * np.eye(3)[0] + index[2] * np.array([0, 0, 10.0])
    expected = expected + index[1] * 4 * np.array([0, np.cos(angle), np.sin(angle)])
    assert (volume.affine @ [*index, 1])[:3] == pytest.approx(expected)
    assert volume.voxel_ml == pytest.approx(4 * 4 * 10 * np.cos(angle) / 1000)


def test_a_tilt_in_the_header_alone_is_a_note(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        header.GantryDetectorTilt = 12

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path)["gantry-tilt"] == "note"


def test_missing_slices_stop_the_scan(tmp_path: Path) -> None:
    for number, path in enumerate(write_series(tmp_path, CHEST)):
        if number in (7, 8, 13):
            path.unlink()
    with pytest.raises(QualityError) as caught:
        read_scan(tmp_path)
    (error,) = [f for f in caught.value.findings if f.level == "error"]
    assert error.code == "missing-slices" and error.found.startswith("3 slice(s) missing, after slice 7, 11")


def test_missing_instance_numbers_alone_are_noted(tmp_path: Path) -> None:
    def change(header: Dataset, index: int) -> None:
        header.InstanceNumber = index + (5 if index > 9 else 1)

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path) == {"instance-numbers": "note"}


def test_instance_numbers_do_not_decide_the_order(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(len(CHEST))

    def change(header: Dataset, index: int) -> None:
        header.InstanceNumber = int(shuffled[index])

    write_series(tmp_path, CHEST, change=change)
    assert np.array_equal(read_scan(tmp_path).array, CHEST)
    assert codes(tmp_path) == {"instance-numbers": "note"}


def test_copies_are_dropped_and_differing_twins_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", CHEST)
    (tmp_path / "a" / "again").mkdir()
    (tmp_path / "a" / "again" / "copy.dcm").write_bytes(paths[3].read_bytes())
    assert codes(tmp_path / "a") == {"duplicate-slices": "warning"}
    assert np.array_equal(read_scan(tmp_path / "a").array, CHEST)

    twin = dcmread(paths[4])
    twin.SOPInstanceUID = "1.2.3.4.1.999"
    twin.save_as(tmp_path / "a" / "twin.dcm")
    assert codes(tmp_path / "a")["duplicate-slices"] == "warning"
    twin.PixelData = twin.PixelData[2:] + b"\0\0"
    twin.save_as(tmp_path / "a" / "twin.dcm")
    assert codes(tmp_path / "a")["duplicate-slices"] == "error"


def test_two_acquisitions_in_one_series_are_parted(tmp_path: Path) -> None:
    def change(number: int) -> object:
        def apply(header: Dataset, index: int) -> None:
            header.AcquisitionNumber, header.SOPInstanceUID = number, f"1.2.3.5.{number}.{index + 1}"
            header.InstanceNumber = index + 1

        return apply

    write_series(tmp_path / "a", CHEST, change=change(1))  # type: ignore[arg-type]
    write_series(tmp_path / "b", (CHEST + 5)[:15], change=change(2))  # type: ignore[arg-type]
    volume = read_scan(tmp_path)
    assert np.array_equal(volume.array, CHEST)
    assert "series-chosen" in {f.code for f in volume.findings}


@pytest.mark.parametrize(("factor", "level"), [(1.07, "warning"), (1.4, "error")])
def test_mixed_spacing(tmp_path: Path, factor: float, level: str) -> None:
    def change(header: Dataset, index: int) -> None:
        header.ImagePositionPatient[2] = f"{-300 + 10 * min(index, 10) + 10 * factor * max(index - 10, 0):.6f}"

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path)["mixed-spacing"] == level


def test_slices_shifted_sideways(tmp_path: Path) -> None:
    def change(header: Dataset, index: int) -> None:
        header.ImagePositionPatient[0] = -200 + (12 if index == 9 else 0)

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path)["shifted-slices"] == "error"


def test_slices_of_another_kind_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST)

    def scout(header: Dataset, index: int) -> None:
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, CHEST[:1], series="7", change=scout)

    def lost(header: Dataset, index: int) -> None:
        header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3.4.1", "1.2.3.4.88"
        if index:
            header.SOPInstanceUID = "1.2.3.4.89"
            del header.ImagePositionPatient

    write_series(tmp_path / "more", CHEST[:2, :48].copy(), series="8", change=lost)
    assert codes(tmp_path) == {"files-skipped": "note", "slices-left-out": "warning"}
    assert np.array_equal(read_scan(tmp_path).array, CHEST)


def test_what_is_no_ct(tmp_path: Path) -> None:
    def modality(name: str) -> object:
        def apply(header: Dataset, _: int) -> None:
            header.Modality = name

        return apply

    for name, code in (("MR", "not-ct"), ("DX", "x-ray"), ("", "not-ct")):
        write_series(tmp_path / f"m{name}", CHEST[:3], change=modality(name))  # type: ignore[arg-type]
        assert codes(tmp_path / f"m{name}")[code] == "error"

    def scout(header: Dataset, _: int) -> None:
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path / "scout", CHEST[:2], change=scout)
    assert codes(tmp_path / "scout")["x-ray"] == "error"


def test_header_oddities_are_reported(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        del header.RescaleSlope, header.RescaleIntercept
        header.PixelRepresentation, header.RescaleType, header.LossyImageCompression = 1, "OD", "01"
        header.ImageType = ["DERIVED", "SECONDARY"]
        header.PixelData = (np.frombuffer(header.PixelData, "<u2").astype(int) - 1024).astype("<i2").tobytes()

    write_series(tmp_path, CHEST, change=change)
    expected = {"no-rescale": "warning", "implausible-hu": "warning", "lossy": "note", "derived": "warning"}
    assert codes(tmp_path) == expected


def test_colour_is_refused(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        header.SamplesPerPixel = 3

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path)["dimensions"] == "error"


def test_truncated_slices(tmp_path: Path) -> None:
    paths = write_series(tmp_path, CHEST)
    paths[5].write_bytes(paths[5].read_bytes()[:-3000])
    error = next(f for f in load(tmp_path).findings if f.level == "error")
    assert error.code == "truncated" and "1 of 20" in error.found and "number 6" in error.found
    paths[5].write_bytes(paths[5].read_bytes()[:300])
    assert "missing-slices" in codes(tmp_path)


def test_damaged_compressed_slices(tmp_path: Path) -> None:
    def compress(header: Dataset, _: int) -> None:
        header.compress(JPEGLSLossless, generate_instance_uid=False)

    paths = write_series(tmp_path, CHEST, change=compress)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: len(data) // 2])
    assert codes(tmp_path) == {"truncated": "error"}


def test_a_slice_that_is_not_as_large_as_its_header_says(tmp_path: Path) -> None:
    write_series(tmp_path, CHEST)
    contents = read_contents(tmp_path)
    other = slice_header(CHEST[0, :50].copy(), 0)
    other.save_as(contents.slices[4].path, enforce_file_format=True)  # replaced after its header was read
    with pytest.raises(QualityError, match="cannot be decoded"):
        read_voxels(contents.slices)
    assert read_plane(contents.slices[4]) is None
    contents.slices[5].path.unlink()
    assert read_plane(contents.slices[5]) is None


def test_damaged_headers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_series(tmp_path, CHEST)
    genuine = pydicom.dcmread

    def fail(path: Path, *args: object, **options: object) -> Dataset:
        if path in bad:
            raise EOFError
        return genuine(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pydicom, "dcmread", fail)
    bad = set(paths[:1])
    (error,) = [f for f in load(tmp_path).findings if f.level == "error"]
    assert error.code == "unreadable" and error.found.startswith("1 of 20 files are DICOM slices")
    bad = set(paths)
    assert codes(tmp_path) == {"unreadable": "error"}


def test_slices_without_instance_numbers_or_with_odd_headers(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        header.InstanceNumber = None
        header.PhotometricInterpretation, header.PixelPaddingValue = "MONOCHROME1", 0
        header.RescaleType = "HU"

    write_series(tmp_path, CHEST, change=change)
    assert codes(tmp_path) == {"implausible-hu": "warning"}


@pytest.mark.parametrize("axes", [(1, 0, 0, 1, 0, 0), (0.5, 0, 0, 0, 1, 0)])
def test_an_orientation_that_is_no_frame(tmp_path: Path, axes: tuple[float, ...]) -> None:
    write_series(tmp_path, CHEST[:3], orientation=axes)
    assert codes(tmp_path) == {"no-position": "error"}


def test_several_patients_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "a", CHEST)

    def other(header: Dataset, _: int) -> None:
        header.PatientID = "another"

    write_series(tmp_path / "b", CHEST, series="2", change=other)
    assert codes(tmp_path) == {"several-patients": "error"}


def test_no_identifier_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(header: Dataset, _: int) -> None:
        header["PatientID"]._value = "secret-id"
        header.add_new("StudyDate", "DA", "19991399")

    write_series(tmp_path / "a", CHEST, change=change)
    write_series(tmp_path / "b", CHEST[2:], series="2")
    with caplog.at_level(logging.DEBUG):
        volume = read_scan(tmp_path)
    said = caplog.text + repr(volume.findings)
    assert "series-chosen" in said
    for secret in ("secret", "Secret", "1.2.3", str(tmp_path)):
        assert secret not in said


def test_a_multi_frame_file(tmp_path: Path) -> None:
    header = slice_header(CHEST[0], 0)
    del header.RescaleSlope, header.RescaleIntercept, header.InstanceNumber
    header.NumberOfFrames = len(CHEST)
    header.PixelData = (CHEST.astype(np.int32) + 1024).astype("<u2").tobytes()
    shared, measures, plane, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [4.0, 4.0], 10.0
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([values])
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    order = np.random.default_rng(3).permutation(len(CHEST))
    header.PixelData = (CHEST[order].astype(np.int32) + 1024).astype("<u2").tobytes()
    groups = []
    for index in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-200, -150, -300 + 10 * int(index)]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = Sequence(groups)
    header.save_as(tmp_path / "multi.dcm", enforce_file_format=True)
    for path in (tmp_path, tmp_path / "multi.dcm"):
        volume = read_scan(path)
        assert np.array_equal(volume.array, CHEST)
        assert volume.spacing_mm == pytest.approx((10.0, 4.0, 4.0))
        assert volume.source.header["frames"] == tuple(int(at) for at in np.argsort(order))


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, CHEST[:1])
    assert codes(path) == {"too-few-slices": "error"}


def test_slices_without_geometry(tmp_path: Path) -> None:
    def change(header: Dataset, _: int) -> None:
        del header.ImageOrientationPatient

    write_series(tmp_path, CHEST[:4], change=change)
    assert codes(tmp_path) == {"no-position": "error"}


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    for path in write_series(tmp_path, CHEST[:12]):
        data = dcmread(path)
        del data.file_meta
        data.preamble = None
        dcmwrite(path, data, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_scan(tmp_path).array, CHEST[:12])


@pytest.mark.real
def test_the_nlst_series_agrees_with_simpleitk(real_data: Path, nlst: Volume) -> None:
    folder = real_data / "nlst-ct-dicom"
    files = {float(dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]): str(p) for p in folder.rglob("*.dcm")}
    image = sitk.ReadImage([files[z] for z in sorted(files)])
    assert np.array_equal(nlst.array, np.maximum(sitk.GetArrayFromImage(image), -1024))
    assert nlst.spacing_mm == pytest.approx((2.0, 0.54, 0.54)) == image.GetSpacing()[::-1]
    assert nlst.origin_mm == pytest.approx(image.GetOrigin())
    assert {f.level for f in nlst.findings} <= {"note"}


@pytest.mark.real
def test_dicom_and_nrrd_of_one_scan_agree(real_data: Path) -> None:
    dicom, nrrd = read_scan(real_data / "cip" / "ct-64Dicom"), read_scan(real_data / "cip" / "ct-64.nrrd")
    assert np.array_equal(dicom.array, nrrd.array)
    assert dicom.spacing_mm == pytest.approx(nrrd.spacing_mm, abs=1e-4)
    assert dicom.origin_mm == pytest.approx(nrrd.origin_mm, abs=1e-3)
    assert np.allclose(dicom.direction, nrrd.direction)
