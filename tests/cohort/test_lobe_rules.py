"""Places of labels are counted right, and what they say against lobes holds for real anatomy whole, cut and small."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.cohort.label_places import LabelPlaces, measure_labels
from m2unet.cohort.lobe_rules import contradictions, weighty
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from tests.cohort.mask_files.samples import lobes_and_volume, lungs


def measured(mask: NDArray[np.generic], spacing: tuple[float, float, float]) -> LabelPlaces:
    return measure_labels(mask.astype(np.int16), from_source(np.zeros(mask.shape, np.int16), spacing))


def test_volumes_centres_and_spreads_are_those_of_the_voxels() -> None:
    lobes, scan = lobes_and_volume()
    found = measure_labels(lobes.astype(np.int16), scan)
    for label, place in found.places.items():
        at = np.argwhere(lobes == label) * scan.spacing_mm
        assert place.volume_ml == pytest.approx(len(at) * scan.voxel_ml)
        np.testing.assert_allclose(place.centre_mm, at.mean(axis=0))
        np.testing.assert_allclose(place.spread_mm, at.std(axis=0))
        np.testing.assert_allclose([place.low_mm, place.high_mm], [at.min(axis=0), at.max(axis=0)])
        assert found.side(place) == ("right" if label < 4 else "left")


def test_fine_slices_are_thinned_for_centres_but_not_for_volumes() -> None:
    mask = np.zeros((3, 520, 520), np.int16)
    mask[:, 100:301, 50:151], mask[1, 400, 401], mask[2, 10, 10] = 7, -3, 32000
    found = measured(mask, (1.0, 1.0, 1.0))
    assert found.places[7].volume_ml == pytest.approx(3 * 201 * 101 / 1000)
    np.testing.assert_allclose(found.places[7].centre_mm, (1, 200, 100), atol=1.0)
    assert list(found.places) == [7, 32000], "a voxel between those counted has no place"


def test_sides_of_lungs_and_of_one_label_for_both() -> None:
    lobes, scan = lobes_and_volume()
    both = measure_labels(lungs(lobes).astype(np.int16), scan)
    assert [both.side(place) for place in both.places.values()] == ["right", "left"]
    one = measure_labels((lobes > 0).astype(np.int16), scan)
    assert one.side(one.places[1]) == "both sides"


def real_maps(real_data: Path) -> list[Volume]:
    found = []
    for path in sorted((real_data / "lobe-maps-small").glob("*.nii.gz"))[::2]:
        raw = read_raw(path)
        volume = from_source(np.where(raw.array <= 5, raw.array, 0), raw.spacing_mm, raw.origin_mm, raw.direction)
        found.append(volume)
    return found


@pytest.mark.real
def test_real_anatomy_is_not_contradicted_whole_cut_or_in_a_child(real_data: Path) -> None:
    for volume in real_maps(real_data):
        seen = np.flatnonzero((volume.array > 0).any(axis=(1, 2)))
        first, size = int(seen[0]), len(seen)
        cuts = {"whole": (0, 1), "lower half": (0, 0.5), "upper half": (0.5, 1), "slab": (0.45, 0.5)}
        for name, (a, b) in cuts.items():
            low, high = first + int(a * size), first + max(int(b * size), int(a * size) + 2)
            for scale in (1.0, 0.35):  # a newborn's lungs are about as much smaller
                places = measured(volume.array[low:high], tuple(scale * mm for mm in volume.spacing_mm))  # type: ignore[arg-type]
                assert not contradictions(weighty(places.places), places), (name, scale)


@pytest.mark.real
def test_wrong_orders_of_real_lobes_are_contradicted(real_data: Path) -> None:
    """Of 119 wrong orders in 26 maps at most two pass: of middle lobes above the upper one, or level with the lower."""
    passed = 0
    for volume in real_maps(real_data):
        labels = measured(volume.array, volume.spacing_mm)
        places = [labels.places[code] for code in range(1, 6)]
        for order in permutations(range(1, 6)):
            if order != (1, 2, 3, 4, 5):
                passed += not contradictions(dict(zip(order, places, strict=True)), labels)
    assert passed <= 2
