"""Masks for 3D Slicer and ITK-SNAP, read by other readers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.anatomy import LOBES
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError
from m2unet.export.annotators import read_segment_codes, write_segmentation, write_snap_labels


@pytest.fixture
def volume() -> Volume:
    direction = np.diag([-1.0, 1.0, -1.0])
    return from_source(np.zeros((4, 6, 5), np.int16), (2.5, 0.7, 0.8), (10.0, 20.0, 300.0), direction)


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 6, (4, 6, 5)).astype(np.uint8)


def test_slicer_finds_voxels_names_colours_and_terms(volume: Volume, mask: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "lobes.seg.nrrd"
    write_segmentation(volume, mask, path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.to_source(mask))
    assert image.GetOrigin() == pytest.approx((10, 20, 300))
    assert image.GetDirection() == pytest.approx(np.diag([-1.0, 1.0, -1.0]).ravel())
    for number, lobe in enumerate(LOBES):
        said = {key: image.GetMetaData(f"Segment{number}_{key}") for key in ("Name", "LabelValue", "Color", "Tags")}
        assert (said["Name"], said["LabelValue"]) == (lobe.name, str(lobe.code))
        assert [round(255 * float(part)) for part in said["Color"].split()] == list(lobe.colour)
        assert f"SCT^{lobe.snomed_ct}^{lobe.snomed_meaning}" in said["Tags"]
        # seven parts between tildes, or Slicer refuses the entry
        entry = said["Tags"].split("TerminologyEntry:")[1].rstrip("|")
        assert len(entry.split("~")) == 7
    assert not image.HasMetaDataKey("Segment5_ID"), "no airway in the mask, none in the header"
    assert path.read_bytes()[:4] == b"NRRD"


def test_segments_are_known_by_name_whatever_their_values(volume: Volume, mask: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "lobes.seg.nrrd"
    write_segmentation(volume, mask, path)
    assert read_segment_codes(path) == {lobe.code: lobe.code for lobe in LOBES}
    image = sitk.ReadImage(str(path))
    image.SetMetaData("Segment0_LabelValue", "12")
    image.SetMetaData("Segment0_ID", "Segment_1")
    image.SetMetaData("Segment0_Name", "RUL")
    sitk.WriteImage(image, str(path))
    assert read_segment_codes(path) == {12: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    image.SetMetaData("Segment0_Name", "corrected by hand")  # the term still tells
    sitk.WriteImage(image, str(path))
    assert read_segment_codes(path) == {12: 1, 2: 2, 3: 3, 4: 4, 5: 5}


def test_foreign_and_overlapping_segments_are_refused(volume: Volume, mask: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "lobes.seg.nrrd"
    write_segmentation(volume, mask, path)
    image = sitk.ReadImage(str(path))
    for key, value in (("ID", "Segment_9"), ("Name", "tumour"), ("Tags", "")):
        image.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(image, str(path))
    with pytest.raises(ScanError, match="tumour"):
        read_segment_codes(path)
    write_segmentation(volume, mask, path)
    image = sitk.ReadImage(str(path))
    image.SetMetaData("Segment1_Layer", "1")
    sitk.WriteImage(image, str(path))
    with pytest.raises(ScanError, match="overlap"):
        read_segment_codes(path)


def test_a_plain_label_map_has_no_segments(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(tmp_path / "m.nrrd"))
    assert read_segment_codes(tmp_path / "m.nrrd") is None
    (tmp_path / "bad.nrrd").write_bytes(b"NRRD0004\nnothing")
    with pytest.raises(ScanError, match="cannot be read"):
        read_segment_codes(tmp_path / "bad.nrrd")


def test_itk_snap_finds_names_and_colours(tmp_path: Path) -> None:
    write_snap_labels(tmp_path / "labels.txt")
    pattern = re.compile(r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([0-9.]+)\s+([01])\s+([01])\s+"(.*)"$')
    lines = [line for line in (tmp_path / "labels.txt").read_text().splitlines() if not line.startswith("#")]
    found = [pattern.match(line) for line in lines]
    assert all(found) and found[0] is not None and found[0][8] == "Clear Label"
    for match, lobe in zip(found[1:6], LOBES, strict=True):
        assert match is not None
        assert (int(match[1]), tuple(int(match[n]) for n in (2, 3, 4))) == (lobe.code, lobe.colour)
        assert match[8] == f"{lobe.abbreviation} {lobe.name}"
