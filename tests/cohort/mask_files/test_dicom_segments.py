"""DICOM segmentations: ours, and highdicom's binary, fractional and label map, on the scan wherever its frames lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from m2unet.anatomy import LOBES
from m2unet.cohort.masks import read_lobes
from m2unet.ct.read import load
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError
from m2unet.export.dicom_seg import write_segmentation
from tests.cohort.conftest import chest
from tests.export.series import write_series

STEP = 15.0
SERIES: dict[str, dict[str, Any]] = {
    "axial": {},
    "downwards": {"step": (0.0, 0.0, -STEP)},
    "prone, feet first": {"orientation": (-1, 0, 0, 0, -1, 0), "step": (0.0, 0.0, -STEP)},
}


@pytest.fixture(scope="module", params=SERIES)
def series(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Volume, NDArray[np.uint8]]:
    """A chest as a DICOM series, and its lobes on the volume's grid (the voxels spell them out)."""
    lobes = chest(0)[1].astype(np.uint16)
    turned = {"downwards": lobes[::-1], "prone, feet first": lobes[::-1, ::-1, ::-1]}.get(request.param, lobes)
    folder = tmp_path_factory.mktemp("series") / "ct"
    write_series(folder, turned, spacing_mm=(4.0, 4.0), **{"step": (0.0, 0.0, STEP), **SERIES[request.param]})
    volume = load(folder).volume
    assert volume is not None and np.array_equal(volume.array, lobes)
    return volume, volume.array.astype(np.uint8)


def write(volume: Volume, lobes: NDArray[np.uint8], path: Path, kind: str = "BINARY", **options: Any) -> Dataset:
    """A segmentation by highdicom, its segments in the reverse order, empty frames left out."""
    sources = [dcmread(file) for file in sorted(Path(volume.source.path or "").iterdir())]
    order = sorted(sources, key=lambda ds: float(ds.ImagePositionPatient[2]))
    codes = [lobe.code for lobe in LOBES][::-1]
    in_order = lobes if order[0].ImageOrientationPatient[0] > 0 else lobes[:, ::-1, ::-1]
    pixels: NDArray[Any] = np.stack([in_order == code for code in codes], axis=-1)
    pixels = pixels.astype(np.float32) * 0.8 if kind == "FRACTIONAL" else pixels.astype(np.uint8)
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, 6, dtype=np.uint8)).sum(axis=-1).astype(np.uint8)
    describe: Callable[[int, int], Any] = options.pop("describe", described)
    dataset = hd.seg.Segmentation(
        source_images=order,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[describe(number, code) for number, code in enumerate(codes, 1)],
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="maker",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    dataset.save_as(path)
    return dataset


def described(number: int, code: int, *, label: str | None = None, kind: Any = None) -> Any:
    lobe = LOBES[code - 1]
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label or f"segment {number}",
        segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=kind or CodedConcept(lobe.snomed_ct, "SCT", lobe.snomed_meaning),
        algorithm_type="MANUAL",
    )


def by_label(number: int, code: int) -> Any:
    """As tools do that code every segment as tissue and name it."""
    return described(number, code, label=LOBES[code - 1].name, kind=CodedConcept("85756007", "SCT", "Tissue"))


def with_side(number: int, code: int) -> Any:
    """As TotalSegmentator and DICOM's context group 6170: upper lobe of lung, with a side."""
    names = {
        1: "upper_lobe_right",
        2: "middle_lobe_right",
        3: "lower_lobe_right",
        4: "upper_lobe_left",
        5: "lower_lobe_left",
    }
    concepts = {1: "45653009", 2: "72481006", 3: "90572001", 4: "45653009", 5: "90572001"}
    found = described(
        number, code, label=f"lung_{names[code]}", kind=CodedConcept(concepts[code], "SCT", "lobe of lung")
    )
    side = CodedConcept("24028007", "SCT", "Right") if code < 4 else CodedConcept("7771000", "SCT", "Left")
    found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return found


@pytest.mark.parametrize("describe", [described, by_label, with_side])
def test_binary_segments_by_code_and_by_label(
    series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path, describe: Callable[[int, int], Any]
) -> None:
    volume, lobes = series
    write(volume, lobes, tmp_path / "a.dcm", describe=describe)
    found = read_lobes(tmp_path / "a.dcm", volume)
    assert np.array_equal(found.array, lobes) and found.recognised_by == "names" and not found.findings


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_fractional_and_label_map(series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path, kind: str) -> None:
    volume, lobes = series
    options = {"fractional_type": "PROBABILITY", "max_fractional_value": 200} if kind == "FRACTIONAL" else {}
    write(volume, lobes, tmp_path / "a.dcm", kind, **options)
    found = read_lobes(tmp_path / "a.dcm", volume)
    assert np.array_equal(found.array, lobes)
    assert [finding.code for finding in found.findings] == (["mask-thresholded"] if kind == "FRACTIONAL" else [])


def test_ours_with_opacities_is_read(series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path) -> None:
    volume, lobes = series
    opacity = np.where(lobes == 3, 1, 0).astype(np.uint8)
    folder = tmp_path / "pacs"
    folder.mkdir()
    write_segmentation(volume, lobes, folder / "lobes.seg.dcm", opacity=opacity)
    for path in (folder, folder / "lobes.seg.dcm"):  # a PACS hands out a series as a folder
        assert np.array_equal(read_lobes(path, volume).array, lobes)
    (folder / "again.dcm").write_bytes((folder / "lobes.seg.dcm").read_bytes())
    with pytest.raises(ScanError, match="several DICOM segmentations"):
        read_lobes(folder, volume)


def test_compressed_frames_are_read(series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path) -> None:
    volume, lobes = series
    write(volume, lobes, tmp_path / "a.dcm", "FRACTIONAL", transfer_syntax_uid=RLELossless, fractional_type="OCCUPANCY")
    assert np.array_equal(read_lobes(tmp_path / "a.dcm", volume).array, lobes)


def test_the_scan_may_be_another_file_of_the_same_place(
    series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path
) -> None:
    """A conversion to NIfTI has no frame of reference; voxels, cropped ones too, lie where positions say."""
    volume, lobes = series
    write(volume, lobes, tmp_path / "a.dcm")
    plain = from_source(volume.array, volume.spacing_mm, volume.origin_mm, volume.direction)
    assert np.array_equal(read_lobes(tmp_path / "a.dcm", plain).array, lobes)
    margin = np.array([2.0, 3.0, 4.0])  # x, y, z voxels of a scan that begins earlier
    origin = np.subtract(volume.origin_mm, margin * volume.spacing_mm[::-1])
    padded = np.pad(volume.array, [(4, 1), (3, 1), (2, 1)])
    larger = from_source(padded, volume.spacing_mm, tuple(origin), volume.direction)
    assert np.array_equal(read_lobes(tmp_path / "a.dcm", larger).array, np.pad(lobes, [(4, 1), (3, 1), (2, 1)]))
    smaller = from_source(volume.array[:9], volume.spacing_mm, volume.origin_mm, volume.direction)
    with pytest.raises(ScanError, match="beyond the scan"):
        read_lobes(tmp_path / "a.dcm", smaller)
    beside = from_source(volume.array, volume.spacing_mm, tuple(np.add(volume.origin_mm, 2.0)), volume.direction)
    with pytest.raises(ScanError, match="beside the scan's voxels"):
        read_lobes(tmp_path / "a.dcm", beside)


def test_another_scans_damaged_and_nameless_segmentations_are_refused(
    series: tuple[Volume, NDArray[np.uint8]], tmp_path: Path
) -> None:
    volume, lobes = series
    write(volume, lobes, tmp_path / "a.dcm")
    other = dcmread(tmp_path / "a.dcm")
    other.FrameOfReferenceUID = hd.UID()
    other.save_as(tmp_path / "other.dcm")
    with pytest.raises(ScanError, match="another scan"):
        read_lobes(tmp_path / "other.dcm", volume)
    other = dcmread(tmp_path / "a.dcm")
    other.PixelData = other.PixelData[: len(other.PixelData) // 2 - len(other.PixelData) // 2 % 2]
    other.save_as(tmp_path / "cut.dcm")
    with pytest.raises(ScanError, match="cannot be read"):
        read_lobes(tmp_path / "cut.dcm", volume)
    lung = CodedConcept("39607008", "SCT", "Lung")
    write(volume, lobes, tmp_path / "lungs.dcm", describe=lambda n, c: described(n, c, label=f"lung {n}", kind=lung))
    with pytest.raises(ScanError, match=r"no lobes|not named"):
        read_lobes(tmp_path / "lungs.dcm", volume)
    names = {1: 4, 2: 2, 3: 5, 4: 1, 5: 3}
    write(volume, lobes, tmp_path / "swapped.dcm", describe=lambda n, c: described(n, names[c]))
    with pytest.raises(ScanError, match="its own names"):
        read_lobes(tmp_path / "swapped.dcm", volume)
