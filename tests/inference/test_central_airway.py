"""The central airway is made whole where the network sees it in part, and nothing else becomes airway."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY
from m2unet.inference.central_airway import complete_central_airway

SPACING = (2.0, 1.0, 1.0)
RUL, LUL = 1, 4
LEVELS = 20


def disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:120, :160]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def chest() -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.bool_]]:
    """Two lungs of -820 HU in soft tissue, and a slanting trachea of 16 mm, in the mask RUL in the middle."""
    array = np.full((LEVELS, 120, 160), 40, np.int16)
    mask = np.zeros(array.shape, np.uint8)
    pipe = np.zeros(array.shape, np.bool_)
    for z in range(LEVELS):
        for x, code in ((40, RUL), (120, LUL)):
            lung = disc(60, x, 30)
            array[z][lung], mask[z][lung] = -820, code
        pipe[z] = disc(50 + 0.5 * z, 80, 8)
        array[z][pipe[z]] = -1000
        mask[z][pipe[z]] = RUL if 5 <= z < 15 else AIRWAY
    return array, mask, pipe


def test_the_part_taken_for_lung_becomes_airway() -> None:
    array, mask, pipe = chest()
    before = mask.copy()
    changed = complete_central_airway(mask, array, SPACING)
    assert (mask[pipe] == AIRWAY).mean() > 0.97  # single pixels of the rim aside
    lungs = (before > 0) & ~pipe
    assert np.array_equal(mask[lungs], before[lungs])
    assert ((mask == AIRWAY) & ~pipe).sum() < 0.05 * pipe.sum()  # single pixels of the rim again
    assert changed == int((before != mask).sum()) > 1000


def test_noise_does_not_hide_it() -> None:
    array, mask, pipe = chest()
    noise = np.random.default_rng(3).normal(0, 60, array.shape)
    complete_central_airway(mask, (array + noise).astype(np.int16), (2.0, 0.7, 0.7))
    assert (mask[pipe] == AIRWAY).mean() > 0.95
    assert (mask[~pipe] == AIRWAY).mean() < 0.001


def test_it_is_followed_up_to_the_top_but_not_below_what_the_network_saw() -> None:
    array, mask, pipe = chest()
    mask[pipe] = RUL
    mask[8:10][pipe[8:10]] = AIRWAY
    complete_central_airway(mask, array, SPACING)
    assert (mask[8:][pipe[8:]] == AIRWAY).mean() > 0.97
    assert not (mask[:8] == AIRWAY).any()


def test_without_any_airway_nothing_changes() -> None:
    array, mask, pipe = chest()
    mask[pipe] = RUL
    assert complete_central_airway(mask, array, SPACING) == 0
    assert not (mask == AIRWAY).any()


def test_a_bulla_in_the_lung_above_the_airway_stays_lung() -> None:
    """Air without a wall of tissue, where the slice before had a lumen."""
    array, mask, pipe = chest()
    array[10:][pipe[10:]] = 40
    bulla = disc(55, 80, 8)
    for z in range(10, LEVELS):
        array[z][disc(55, 80, 20)], mask[z][disc(55, 80, 20)] = -820, RUL
        array[z][bulla] = -1000
        mask[z][bulla] = RUL
    complete_central_airway(mask, array, SPACING)
    assert (mask[10:][:, bulla] == RUL).all()


@pytest.mark.parametrize("radius", [2.0, 20.0])
def test_a_piece_of_another_size_is_no_airway(radius: float) -> None:
    array, mask, _ = chest()
    array[12], mask[12] = 40, 0
    array[12][disc(56, 80, radius)] = -1000
    mask[12][disc(56, 80, radius)] = RUL
    complete_central_airway(mask, array, SPACING)
    assert (mask[12][disc(56, 80, radius)] == RUL).all()
