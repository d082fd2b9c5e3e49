"""3D Slicer's segments: names decide, files may be cropped or in layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.anatomy import CODE_MAPS
from m2unet.cohort.masks import read_lobes
from m2unet.ct.volume import Volume
from m2unet.errors import ScanError
from m2unet.export.annotators import write_segmentation
from tests.cohort.mask_files.samples import (
    NAMES,
    lobes_and_volume,
    lungs,
    order_of,
    recoded,
    save_layers,
    save_segments,
)

REVERSED = {code: 6 - code for code in range(1, 6)}


@pytest.fixture(scope="module")
def sample() -> tuple[NDArray[np.uint8], Volume]:
    return lobes_and_volume()


def reversed_names() -> dict[int, str]:
    return {REVERSED[code]: name for code, name in NAMES.items()}


def test_names_decide_whatever_the_values(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    path = save_segments(tmp_path / "a.seg.nrrd", recoded(lobes, REVERSED).astype(np.uint8), reversed_names())
    found = read_lobes(path, scan)
    assert np.array_equal(found.array, lobes) and (found.codes, found.recognised_by) == ("names", "names")
    assert found.labels["left lower lobe"] == "LLL" and not found.findings
    with pytest.raises(ScanError, match="names decide"):
        read_lobes(path, scan, "m2unet")


def test_our_own_export_is_read(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    write_segmentation(scan, lobes, tmp_path / "ours.seg.nrrd")
    assert np.array_equal(read_lobes(tmp_path / "ours.seg.nrrd", scan).array, lobes)


@pytest.mark.parametrize("margin", [0, 2, -3])
def test_a_file_cropped_to_its_segments_lies_where_it_belongs(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], margin: int
) -> None:
    """With a negative margin the file is larger than the scan."""
    lobes, scan = sample
    inside = np.argwhere(lobes > 0)
    low = np.maximum(inside.min(axis=0) - margin, 0) if margin >= 0 else np.array([margin] * 3)
    high = np.minimum(inside.max(axis=0) + 1 + margin, lobes.shape)
    cropped = lobes[tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))]
    part = cropped if margin >= 0 else np.pad(lobes, -margin)
    path = save_segments(tmp_path / "a.seg.nrrd", part, NAMES, start=low.tolist())
    assert np.array_equal(read_lobes(path, scan).array, lobes)


def test_a_cropped_file_of_another_scan_is_refused(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    beyond = save_segments(tmp_path / "b.seg.nrrd", lobes, NAMES, start=(8, 0, 0))
    with pytest.raises(ScanError, match="reaches beyond"):
        read_lobes(beyond, scan)
    between = save_segments(tmp_path / "c.seg.nrrd", lobes[:, 2:, 2:], NAMES, start=(0, 2, 2.5))  # type: ignore[arg-type]
    with pytest.raises(ScanError, match="grid"):
        read_lobes(between, scan)


@pytest.mark.parametrize("overlapping", [False, True])
def test_segments_in_layers(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], overlapping: bool) -> None:
    """Two layers that reuse labels; the second holds both lungs, too, which lie over the lobes."""
    lobes, scan = sample
    first = np.where(np.isin(lobes, (4, 5)), lobes - 3, 0).astype(np.uint8)
    second = np.where(np.isin(lobes, (1, 2, 3)), lobes, 0).astype(np.uint8)
    layers = [first, second, (lobes > 0).astype(np.uint8)]
    segments = [("LUL", 0, 1), ("LLL", 0, 2), ("RUL", 1, 1), ("RML", 1, 2), ("RLL", 1, 3), ("lungs", 2, 1)]
    if overlapping:
        layers[2], segments[5] = (np.isin(lobes, (2, 3))).astype(np.uint8), ("RLL", 2, 1)
        segments[4] = ("infection", 1, 3)
        with pytest.raises(ScanError, match=r"overlap.*[45]\d|two lobes"):
            read_lobes(save_layers(tmp_path / "a.seg.nrrd", layers, segments), scan)
        return
    found = read_lobes(save_layers(tmp_path / "a.seg.nrrd", layers, segments), scan)
    assert np.array_equal(found.array, lobes) and found.recognised_by == "names"


def test_other_structures_are_left_out_but_nothing_unclear(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    mask = lobes.copy()
    mask[:2, :4, :4] = 9
    found = read_lobes(save_segments(tmp_path / "a.seg.nrrd", mask, {**NAMES, 9: "tumour"}), scan)
    assert np.array_equal(found.array, lobes)
    for unclear in ("Segment_6", "lingula"):
        with pytest.raises(ScanError, match=unclear):
            read_lobes(save_segments(tmp_path / "b.seg.nrrd", mask, {**NAMES, 9: unclear}), scan)
    with pytest.raises(ScanError, match="no segment of it"):
        read_lobes(
            save_segments(tmp_path / "c.seg.nrrd", np.where(mask == 9, 8, lobes).astype(np.uint8) + (mask == 9), NAMES),
            scan,
        )


def test_names_of_lungs_are_no_lobes(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    path = save_segments(tmp_path / "a.seg.nrrd", lungs(lobes), {1: "right lung", 2: "left lung"})
    with pytest.raises(ScanError, match=r"no lobes.*right lung, left lung"):
        read_lobes(path, scan)
    twice = save_segments(tmp_path / "b.seg.nrrd", lobes, {**NAMES, 2: "RUL"})
    with pytest.raises(ScanError, match="several segments of one lobe"):
        read_lobes(twice, scan)


def test_names_against_the_places_are_refused(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    swapped = {1: NAMES[4], 2: NAMES[2], 3: NAMES[5], 4: NAMES[1], 5: NAMES[3]}
    with pytest.raises(ScanError, match="its own names"):
        read_lobes(save_segments(tmp_path / "a.seg.nrrd", lobes, swapped), scan)


def test_a_name_that_its_terminology_contradicts_is_refused(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    tag = (
        "TerminologyEntry:list~SCT^123037004^Anatomical Structure~SCT^45653009^Upper lobe of lung~SCT^{}^side~x~^^~^^|"
    )
    right, left = ({"Tags": tag.format(side)} for side in ("24028007", "7771000"))
    named = {**NAMES, 1: "Segment A"}
    found = read_lobes(save_segments(tmp_path / "a.seg.nrrd", lobes, named, more={1: right}), scan)
    assert np.array_equal(found.array, lobes) and found.labels["Segment A"] == "RUL"
    with pytest.raises(ScanError, match=r"contradicts itself.*LUL"):
        read_lobes(save_segments(tmp_path / "b.seg.nrrd", lobes, NAMES, more={1: left}), scan)


def test_names_that_say_nothing_leave_it_to_values_and_places(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    plain = {code: f"Segment_{code}" for code in range(1, 6)}
    mask = recoded(lobes, order_of(CODE_MAPS["lungmask"])).astype(np.uint8)
    found = read_lobes(save_segments(tmp_path / "a.seg.nrrd", mask, plain), scan)
    assert found.codes == "lungmask" and np.array_equal(found.array, lobes)
    with pytest.raises(ScanError, match="by their places"):
        read_lobes(save_segments(tmp_path / "b.seg.nrrd", recoded(lobes, REVERSED).astype(np.uint8), plain), scan)
