"""Measures of lobe maps on shapes whose measures can be worked out by hand, and on the real maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from m2unet.errors import M2UNetError
from m2unet.phantom import measure

SPACING = (4.0, 2.0, 2.0)


def block_lungs() -> np.ndarray:
    """Two boxes of 200 x 160 x 100 mm each; planes through the middle at 45 degrees part the lobes."""
    lobes = np.zeros((60, 90, 120), np.uint8)
    z, y, x = np.indices(lobes.shape)
    up, back = (z - 34.5) * 4.0, (y - 44.5) * 2.0
    inside = (np.abs(up) < 100) & (np.abs(back) < 80) & (np.abs(x - 59.5) < 52) & (np.abs(x - 59.5) > 2)
    upper = up - back > 0
    right = x < 60
    lobes[inside & right & upper] = 1
    lobes[inside & right & upper & (up < 20)] = 2
    lobes[inside & right & ~upper] = 3
    lobes[inside & ~right & upper] = 4
    lobes[inside & ~right & ~upper] = 5
    return lobes


def test_box_volumes_and_areas_of_boxes() -> None:
    lobes = block_lungs()
    box = measure.lung_box(lobes, SPACING)
    assert (box.height_mm, box.depth_mm, box.width_mm) == (200, 160, 208)
    volumes = measure.volumes_ml(lobes, SPACING)
    assert sum(volumes.values()) == pytest.approx(200 * 160 * 200 / 1000)
    assert volumes["LUL"] == pytest.approx(volumes["LLL"], rel=0.05)
    profile = measure.area_profile(lobes, SPACING)
    assert profile == pytest.approx(np.full(9, 160 * 200 / 200**2))


def test_fissures_of_planes() -> None:
    lobes = block_lungs()
    for side in ("right", "left"):
        fit = measure.fit_oblique(lobes, SPACING, side)
        assert fit is not None
        assert fit.angle_degrees == pytest.approx(45, abs=2)
        assert fit.terms["twist"] == pytest.approx(0, abs=0.05)
        # The plane z' = y in heights from the base: (z - y) / sqrt 2 = 0.5 / sqrt 2.
        assert fit.terms["level"] == pytest.approx(0.5 / 2**0.5, abs=0.02)
    minor = measure.fit_minor(lobes, SPACING)
    assert minor is not None
    assert minor.terms["level"] == pytest.approx(0.6, abs=0.02)
    assert minor.angle_degrees == pytest.approx(0, abs=0.5)


def test_dome_of_a_sloped_base() -> None:
    lobes = np.zeros((50, 60, 80), np.uint8)
    z, _, x = np.indices(lobes.shape)
    lobes[(x < 38) & (z >= 20)] = 3
    lobes[(x > 41) & (z >= 10)] = 5
    lobes[0, 30, 79] = 5  # the lowest point
    found = measure.measure_lobes(lobes, (4.0, 4.0, 4.0))
    assert found["dome_right"] == pytest.approx(0.4)
    assert found["dome_left"] == pytest.approx(0.2)
    assert np.isnan(found["minor_level"])
    assert np.isnan(found["carina"])


def test_carina_is_where_the_airway_parts() -> None:
    lobes = np.where(np.abs(np.indices((50, 40, 60))[2] - 29.5) > 8, 4, 0).astype(np.uint8)
    lobes[25:, 18:22, 28:32] = 6
    lobes[15:25, 18:22, 24:28] = 6
    lobes[15:25, 18:22, 32:36] = 6
    assert measure.carina_height(lobes, (4.0, 4.0, 4.0)) == pytest.approx((24 + 0.5) / 50)


def test_empty_map_is_refused() -> None:
    with pytest.raises(M2UNetError, match="without lobes"):
        measure.measure_lobes(np.zeros((4, 4, 4), np.uint8), SPACING)


def test_real_maps_have_plausible_measures(real_data: Path) -> None:
    import SimpleITK as sitk

    folder = real_data / "lobe-maps-small"
    if not folder.is_dir():
        pytest.skip("no lobe maps")
    for path in sorted(folder.glob("*.nii.gz"))[:6]:
        image = sitk.ReadImage(str(path))
        z, y, x = image.GetSpacing()[::-1]
        found = measure.measure_lobes(sitk.GetArrayFromImage(image), (z, y, x))
        assert 900 < found["volume_ml"] < 9000
        assert 25 < found["oblique_left_angle_degrees"] < 80
        assert found["oblique_right_roughness_mm"] < 8
        assert sum(v for k, v in found.items() if k.startswith("share_")) == pytest.approx(100)
