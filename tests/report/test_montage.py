"""Pictures: the right slices, the right way round, contours where masks end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from m2unet.anatomy import LOBE_BY_CODE
from m2unet.report.contours import OPACITIES, Slice, draw_slice
from m2unet.report.montage import Scene, save_montage, save_thumbnail

from .conftest import WrittenCase


def is_colour(picture: np.ndarray, colour: tuple[int, int, int], within: int = 30) -> np.ndarray:
    return np.abs(picture.astype(int) - np.array(colour)).max(axis=-1) <= within


def test_grey_values_are_the_lung_window() -> None:
    image = np.array([[-1350, -600, 150, 3000]], np.int16).repeat(3, axis=0)
    picture = draw_slice(Slice(image, None, None, (1.0, 1.0)), 1.0)
    np.testing.assert_array_equal(picture[1], np.array([[0] * 3, [128] * 3, [255] * 3, [255] * 3]))


def test_pixels_are_square_in_millimetres() -> None:
    image = np.zeros((10, 40), np.int16)
    assert draw_slice(Slice(image, None, None, (5.0, 1.5)), 2.0).shape == (100, 120, 3)


def test_a_contour_runs_where_the_mask_ends_and_nowhere_else() -> None:
    lobes = np.zeros((40, 40), np.uint8)
    lobes[10:30, 8:32] = 4
    picture = draw_slice(Slice(np.full((40, 40), -800, np.int16), lobes, None, (1.0, 1.0)), 4.0)
    drawn = is_colour(picture, LOBE_BY_CODE[4].colour)
    rows, columns = np.nonzero(drawn)
    assert abs(rows.min() - 40) <= 3 and abs(rows.max() - 119) <= 3
    assert abs(columns.min() - 32) <= 3 and abs(columns.max() - 127) <= 3
    assert drawn[80, 28:36].any() and not drawn[60:100, 50:110].any()


def test_opacities_are_tinted_by_kind() -> None:
    opacity = np.zeros((30, 30), np.uint8)
    opacity[5:12, 5:25], opacity[18:25, 5:25] = 1, 2
    image = np.full((30, 30), -800, np.int16)
    plain = draw_slice(Slice(image, None, None, (1.0, 1.0)), 2.0).astype(float)
    tinted = draw_slice(Slice(image, None, opacity, (1.0, 1.0)), 2.0).astype(float)
    for (row, column), (_, _, colour) in zip(((17, 30), (43, 30)), OPACITIES, strict=True):
        towards = np.array(colour) - plain[row, column]
        moved = tinted[row, column] - plain[row, column]
        np.testing.assert_allclose(moved, 0.42 * towards, atol=1.5)
    np.testing.assert_array_equal(tinted[2], plain[2])


def test_the_montage_shows_the_right_on_the_left_and_the_head_on_top(tmp_path: Path) -> None:
    array = np.full((30, 40, 60), -1000, np.int16)
    lobes = np.zeros(array.shape, np.uint8)
    lobes[5:25, 8:32, 6:26], lobes[5:25, 8:32, 34:54] = 3, 5
    lobes[20:25][lobes[20:25] == 3] = 1
    lobes[20:25][lobes[20:25] == 5] = 4
    save_montage(tmp_path / "m.png", Scene(array, lobes, None, (3.0, 2.0, 2.0)), title="x")
    save_thumbnail(tmp_path / "t.png", Scene(array, lobes, None, (3.0, 2.0, 2.0)), height=120)
    picture = np.asarray(Image.open(tmp_path / "m.png"))
    assert picture.shape[1] == 1600 and picture.shape[2] == 3
    small = np.asarray(Image.open(tmp_path / "t.png"))
    assert small.shape[0] == 120
    where = {code: np.argwhere(is_colour(small, LOBE_BY_CODE[code].colour, 40)).mean(axis=0) for code in (1, 3, 4, 5)}
    assert where[1][0] < where[3][0] and where[4][0] < where[5][0]  # head above feet
    assert where[1][1] < where[4][1] and where[3][1] < where[5][1]  # the patient's right on the left
    axial = picture[40:300, :394]
    right, left = (np.argwhere(is_colour(axial, LOBE_BY_CODE[code].colour, 40)) for code in (1, 4))
    assert right.size and left.size and right[:, 1].mean() < left[:, 1].mean()


def test_the_head_is_shown_when_lungs_begin_at_the_first_slice(tmp_path: Path) -> None:
    array = np.full((12, 20, 30), -800, np.int16)
    lobes = np.zeros(array.shape, np.uint8)
    lobes[:, 4:16, 4:14] = 1
    save_montage(tmp_path / "m.png", Scene(array, lobes, np.zeros_like(lobes), (5.0, 2.0, 2.0)))
    assert is_colour(np.asarray(Image.open(tmp_path / "m.png")), LOBE_BY_CODE[1].colour).sum() > 500


def test_a_scan_without_lobes_is_shown_by_its_body(tmp_path: Path) -> None:
    array = np.full((10, 50, 50), -1000, np.int16)
    array[:, 20:40, 10:30] = 40
    scene = Scene(array, None, None, (5.0, 2.0, 2.0))
    box = scene.box()
    assert (box[1].start, box[1].stop, box[2].start, box[2].stop) == (14, 46, 4, 36)
    save_montage(tmp_path / "m.png", scene)
    assert np.asarray(Image.open(tmp_path / "m.png")).max() > 200


def test_the_case_has_its_pictures(written: WrittenCase) -> None:
    assert Image.open(written.folder / "montage.png").size[0] == 1600
    assert Image.open(written.folder / "thumbnail.png").size[1] == 160
