"""Orientation: exact both ways, and every voxel at its place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError

ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


@st.composite
def geometries(
    draw: st.DrawFn,
) -> tuple[tuple[int, int, int], tuple[float, ...], tuple[float, ...], NDArray[np.float64]]:
    """Shape (k, j, i), spacing (k, j, i), origin, and a direction up to 40 degrees off any of the 48 orders."""
    order, signs = draw(st.sampled_from(ORDERS))
    angles = [draw(st.floats(-40, 40)) for _ in range(2)]
    turn = Rotation.from_euler("zx", angles, degrees=True).as_matrix()
    direction = turn @ (np.eye(3)[:, list(order)] * np.asarray(signs))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.3, 12)) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500)) for _ in range(3))
    return shape, spacing, origin, direction  # type: ignore[return-value]


@settings(max_examples=150, deadline=None)
@given(geometries())
def test_way_there_and_back(geometry: tuple) -> None:
    shape, spacing, origin, direction = geometry
    source = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = from_source(source, spacing, origin, direction)
    assert np.array_equal(volume.to_source(volume.array), source)
    # the nearest order: each canonical axis runs along its patient axis more than against it
    assert (np.diag(volume.direction) > 0).all()
    for z, y, x in itertools.product(*[(0, n - 1) for n in volume.shape]):
        place = (volume.affine @ [x, y, z, 1])[:3]
        index = np.linalg.solve(direction, place - origin) / spacing[::-1]  # ITK's mapping, inverted
        assert np.allclose(index, np.rint(index), atol=1e-6)
        i, j, k = np.rint(index).astype(int)
        assert source[k, j, i] == volume.array[z, y, x]


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_all_orders_give_the_same_array(order: tuple[int, int, int], signs: tuple[float, float, float]) -> None:
    """A volume stored along any axes in any direction comes out as SimpleITK's DICOMOrient says."""
    direction = np.eye(3)[:, list(order)] * np.asarray(signs)
    source = np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
    volume = from_source(source, (3.0, 2.0, 1.5), (7.0, -3.0, 11.0), direction)
    image = sitk.GetImageFromArray(source)
    image.SetSpacing((1.5, 2.0, 3.0))
    image.SetOrigin((7.0, -3.0, 11.0))
    image.SetDirection(direction.ravel())
    oriented = sitk.DICOMOrient(image, "LPS")
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(oriented))
    assert volume.spacing_mm == pytest.approx(oriented.GetSpacing()[::-1])
    assert volume.origin_mm == pytest.approx(oriented.GetOrigin())


def test_values_are_rounded_and_clipped() -> None:
    volume = from_source(np.array([[[-0.6, 1.4, 1e6, -1e6]]]), (1.0, 1.0, 1.0))
    assert volume.array.tolist() == [[[-1, 1, 32767, -32768]]]


def test_a_slanted_stack_has_smaller_voxels() -> None:
    direction = np.array([[1, 0, 0], [0, 1, 0.6], [0, 0, 0.8]])
    volume = from_source(np.zeros((2, 2, 2), np.int16), (10.0, 2.0, 2.0), direction=direction)
    assert volume.voxel_ml == pytest.approx(10 * 0.8 * 4 / 1000)


def test_what_is_no_volume() -> None:
    with pytest.raises(ScanError, match="three axes"):
        from_source(np.zeros((2, 2)), (1.0, 1.0, 1.0))
    good = from_source(np.zeros((2, 2, 2), np.int16), (1.0, 1.0, 1.0))
    with pytest.raises(ScanError, match="int16"):
        Volume(np.zeros((2, 2, 2)), (1, 1, 1), (0, 0, 0), np.eye(3), good.source)  # type: ignore[arg-type]
    with pytest.raises(ScanError, match="positive"):
        from_source(np.zeros((2, 2, 2), np.int16), (1.0, -1.0, 1.0))
    with pytest.raises(ScanError, match="grid"):
        good.to_source(np.zeros((2, 2, 3)))
