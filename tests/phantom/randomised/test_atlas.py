"""The atlas of lobes: counted rightly, weighs without changing what a side has in all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m2unet.anatomy import LEFT_CODES, RIGHT_CODES
from m2unet.errors import ModelError
from m2unet.inference.atlas_file import ATLAS_FILE, load_atlas, save_atlas
from m2unet.models.lobe_atlas import SHAPE, LobeAtlas, bins, slice_box
from m2unet.phantom.randomised.atlas import build_atlas
from m2unet.phantom.randomised.pool import ChestPool


@pytest.fixture(scope="module")
def atlas(pool: ChestPool) -> LobeAtlas:
    return build_atlas(pool[number] for number in range(2))


def test_shares_of_a_side_add_up_and_follow_anatomy(atlas: LobeAtlas) -> None:
    for codes in (RIGHT_CODES, LEFT_CODES):
        assert np.allclose(atlas.share[[code - 1 for code in codes]].sum(axis=0), 1, atol=1e-5)
    assert atlas.share.min() > 0
    upper_right, lower_right = atlas.share[0], atlas.share[2]
    assert upper_right[-3:].mean() > 0.8 and lower_right[:6, -6:].mean() > 0.8


def test_it_tells_the_lobes_of_its_own_chests(atlas: LobeAtlas, pool: ChestPool) -> None:
    """Undecided scores within each lung become lobes by the atlas alone."""
    chest = pool[0]
    truth = np.asarray(chest.maps[0])[int(chest.base) : int(chest.apex) + 1 : 4]
    scores = np.zeros((7, *truth.shape), np.float16)
    for codes in (RIGHT_CODES, LEFT_CODES):
        for code in codes:
            scores[code][np.isin(truth, codes)] = 1 / len(codes)
    sides = scores[1:4].sum(axis=0, dtype=np.float32)
    atlas.apply(scores, np.linspace(-1, 1, len(truth)), 1.0)
    assert np.allclose(scores[1:4].sum(axis=0, dtype=np.float32), sides, atol=5e-3)
    lung = (truth > 0) & (truth < 6)
    found = scores[1:6].argmax(axis=0) + 1
    assert (found == truth)[lung].mean() > 0.8


def test_weight_zero_changes_nothing(atlas: LobeAtlas) -> None:
    scores = np.zeros((7, 1, 40, 40), np.float16)
    scores[1, 0, 5:30, 3:18], scores[2, 0, 5:30, 3:18] = 0.75, 0.25
    before = scores.copy()
    atlas.apply(scores, np.zeros(1), 0.0)
    assert np.allclose(scores, before, atol=2e-3)


def test_bins_and_boxes() -> None:
    lung = np.zeros((50, 60), bool)
    assert slice_box(lung) is None
    lung[10:31, 20:41] = True
    box = slice_box(lung)
    assert box is not None and np.allclose(box, (10, 30, 20, 40), atol=0.5)
    level, depth, breadth = bins(1.0, np.array([10, 30]), np.array([20, 40]), box)
    assert list(level) == [SHAPE[0] - 1] * 2
    assert list(depth) == [0, SHAPE[1] - 1] and list(breadth) == [0, SHAPE[2] - 1]


def test_file_round_trip_and_damage(atlas: LobeAtlas, tmp_path: Path) -> None:
    assert load_atlas(tmp_path) is None
    save_atlas(atlas, tmp_path)
    again = load_atlas(tmp_path)
    assert again is not None and np.allclose(again.share, atlas.share, atol=1e-3)
    (tmp_path / ATLAS_FILE).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="atlas"):
        load_atlas(tmp_path)
