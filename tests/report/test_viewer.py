"""The data of the interactive view: right voxels in the right place, small, and with their licences."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from m2unet.ct.volume import from_source
from m2unet.report import viewer
from m2unet.report.montage import Scene
from m2unet.report.viewer import (
    Layer,
    View,
    install_assets,
    make_view,
    shrink_factors,
    shrink_image,
    shrink_mask,
    write_viewer,
)

from .conftest import WrittenCase
from .pages import read_page


def data_of(folder: Path) -> dict[str, Any]:
    text = (folder / "viewer_data.js").read_text(encoding="ascii")
    found = re.fullmatch(r"window\.m2unetView = (.*);\n", text, re.DOTALL)
    assert found
    return json.loads(found[1])


def read_nifti(content: bytes, folder: Path) -> sitk.Image:
    path = folder / "layer.nii.gz"
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


def test_layers_lie_where_the_scan_lies(written: WrittenCase, tmp_path: Path) -> None:
    volume, lobes = written.prediction.volume, written.prediction.lobes
    assert lobes is not None
    layers = data_of(written.folder)["layers"]
    assert [layer["id"] for layer in layers] == ["ct", "lobes", "opacity"]
    ct = read_nifti(base64.b64decode(layers[0]["nifti"]), tmp_path)
    mask = read_nifti(base64.b64decode(layers[1]["nifti"]), tmp_path)
    assert ct.GetSize() == mask.GetSize()
    z, y, x = np.argwhere(lobes == 5)[1234]
    place = [float(v) for v in volume.affine @ np.array([x, y, z, 1.0])][:3]
    assert mask[mask.TransformPhysicalPointToIndex(place)] == 5
    shown = ct[ct.TransformPhysicalPointToIndex(place)]
    assert shown == pytest.approx(np.clip(volume.array[z, y, x], -1024, 1016), abs=4.01)


def test_labels_carry_our_names_and_colours(written: WrittenCase) -> None:
    lobes = data_of(written.folder)["layers"][1]
    assert [label["code"] for label in lobes["labels"]] == [1, 2, 3, 4, 5]
    assert lobes["labels"][2] == {"code": 3, "name": "RLL, right lower lobe", "colour": [86, 180, 233]}
    raw = gzip.decompress(base64.b64decode(lobes["nifti"]))
    assert int.from_bytes(raw[68:70], "little") == 1002  # NIfTI-1: an image of labels


def test_the_view_begins_at_the_disease(written: WrittenCase, tmp_path: Path) -> None:
    data = data_of(written.folder)
    opacity = sitk.GetArrayFromImage(read_nifti(base64.b64decode(data["layers"][2]["nifti"]), tmp_path))
    left, back, feet = data["focus"]  # shares from the left, the back and the feet; the array is LPS
    deep, high, wide = opacity.shape
    assert opacity[int(feet * deep), int((1 - back) * high), int((1 - left) * wide)] > 0


def test_the_same_scan_gives_the_same_bytes(written: WrittenCase) -> None:
    volume = written.prediction.volume
    scene = Scene(volume.array, written.prediction.lobes, None, volume.spacing_mm)
    first, second = make_view(volume, scene), make_view(volume, scene)
    assert [layer.nifti for layer in first.layers] == [layer.nifti for layer in second.layers]


def test_a_large_scan_is_shown_coarser(written: WrittenCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    volume = written.prediction.volume
    monkeypatch.setattr(viewer, "MOST_VOXELS", 60_000)
    view = make_view(volume, Scene(volume.array, written.prediction.lobes, None, volume.spacing_mm))
    assert view.coarser_mm is not None
    mask = read_nifti(view.layers[1].nifti, tmp_path)
    assert mask.GetNumberOfPixels() <= 60_000
    assert mask.GetSpacing() == pytest.approx(view.coarser_mm, rel=1e-5)
    assert written.prediction.lobes is not None
    voxels = np.bincount(sitk.GetArrayFromImage(mask).ravel(), minlength=6)[1:] * np.prod(view.coarser_mm)
    truth = np.bincount(written.prediction.lobes.ravel(), minlength=6)[1:6] * volume.voxel_ml * 1000
    np.testing.assert_allclose(voxels, truth, rtol=0.06)
    z, y, x = (np.round(np.argwhere(written.prediction.lobes == 3).mean(axis=0))).astype(int)
    assert mask[mask.TransformPhysicalPointToIndex((volume.affine @ [x, y, z, 1.0])[:3].tolist())] == 3


def test_blocks_shrink_to_their_mean_and_their_majority() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    np.testing.assert_allclose(shrink_image(array, (2, 1, 2))[0, 0], [(0 + 1 + 12 + 13) / 4, (2 + 3 + 14 + 15) / 4])
    assert shrink_image(array, (1, 2, 2)).shape == (2, 1, 2)
    mask = np.array([[[0, 1, 1, 2], [1, 1, 2, 2]]], np.uint8)
    np.testing.assert_array_equal(shrink_mask(mask, (1, 2, 2), [1, 2]), [[[1, 2]]])
    np.testing.assert_array_equal(shrink_mask(np.array([[[0, 6]]], np.uint8), (1, 1, 1), [1]), [[[0, 0]]])


def test_factors_refine_the_finest_axes_first() -> None:
    assert shrink_factors((100, 100, 100), (1.0, 1.0, 1.0)) == (1, 1, 1)
    assert shrink_factors((143, 512, 512), (2.0, 0.54, 0.54))[0] == 1
    deep, high, wide = shrink_factors((600, 512, 512), (0.6, 0.6, 0.6))
    assert deep == high == wide == 3


def test_a_tilted_scan_is_shown_straight(tmp_path: Path) -> None:
    array = np.full((6, 8, 8), -800, np.int16)
    volume = from_source(array, (5.0, 1.0, 1.0))
    tilted = volume.direction.copy()
    tilted[1, 2] = 0.3
    view = make_view(replace(volume, direction=tilted), Scene(array, None, None, (5.0, 1.0, 1.0)))
    np.testing.assert_allclose(read_nifti(view.layers[0].nifti, tmp_path).GetDirection(), np.eye(3).ravel(), atol=1e-6)


def test_the_page_refers_only_to_its_neighbours(written: WrittenCase) -> None:
    text = (written.folder / "viewer.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:", text)
    page = read_page(text)
    assert set(page.references) == {"report.html", "../assets/niivue.umd.js", "viewer_data.js"}
    assert all((written.folder / reference).is_file() for reference in page.references)
    assert "Content-Security-Policy" in text and "default-src 'none'" in text
    assert "case &lt;1&gt;" in text and "case <1>" not in text
    assert "Research use only." in page.text and "digital phantoms" in page.text


def test_assets_are_put_once_and_mended(tmp_path: Path) -> None:
    install_assets(tmp_path)
    script = tmp_path / "niivue.umd.js"
    before = script.stat()
    install_assets(tmp_path)
    assert script.stat().st_mtime_ns == before.st_mtime_ns and script.stat().st_ino == before.st_ino
    whole = script.read_bytes()
    script.write_bytes(whole[:100])
    install_assets(tmp_path)
    assert script.read_bytes() == whole
    licences = (tmp_path / "niivue.LICENSE.txt").read_text(encoding="utf-8")
    assert "BSD 2-Clause" in licences and "Copyright (c) 2021, Niivue" in licences
    for bundled in ("fflate", "gl-matrix", "nifti-reader-js", "zarrita", "array-equal"):
        assert f"\n{bundled} " in licences


def test_shrinking_is_the_mean_and_the_vote_of_whole_blocks() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(-1024, 3071, (7, 9, 11)).astype(np.int16)
    mask = rng.choice(np.array([0, 1, 1, 4, 5], np.uint8), image.shape)
    means = ndimage.uniform_filter(image[:6, :8, :9].astype(float), (2, 4, 3), origin=(-1, -2, -1), mode="nearest")
    assert np.allclose(shrink_image(image, (2, 4, 3)), means[::2, ::4, ::3], atol=1e-3)
    blocks = mask[:6, :8, :9].reshape(3, 2, 2, 4, 3, 3).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 24)
    expected = [np.bincount(block[np.isin(block, (0, 1, 5))], minlength=6) for block in blocks]
    for counts, block in zip(expected, blocks, strict=True):
        counts[0] += int(np.sum(block == 4))  # a code that is not asked for is nothing
    votes = np.array([np.argmax(counts) for counts in expected]).reshape(3, 2, 3)
    assert np.array_equal(shrink_mask(mask, (2, 4, 3), (1, 5)), votes)


@pytest.mark.parametrize(("spacing", "outlined"), [((4.0, 1.6, 1.6), True), ((4.1, 1.6, 1.6), False)])
def test_thick_slices_begin_without_outlines(
    written: WrittenCase, tmp_path: Path, spacing: tuple[float, float, float], outlined: bool
) -> None:
    scan = written.document.scan.model_copy(update={"spacing_mm": spacing})
    view = make_view(written.prediction.volume, Scene(written.prediction.volume.array, None, None, spacing))
    layers = (*view.layers, Layer("lobes", "Lobes", "labels", view.layers[0].nifti))
    write_viewer(tmp_path, written.document.model_copy(update={"scan": scan}), View(layers))
    text = (tmp_path / "viewer.html").read_text()
    assert ('id="outline" checked' in text) is outlined and ("Outlines go round" in text) is not outlined
