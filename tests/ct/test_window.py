"""The grey window on NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m2unet.config import WindowConfig
from m2unet.ct.window import apply_window

HU = [-2000, -1200, -600, -300, 0, 500]
EXPECTED = [0, 0, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_numpy(dtype: type) -> None:
    out = apply_window(np.array(HU, dtype=dtype), WindowConfig())
    assert isinstance(out, np.ndarray) and out.dtype == np.float32
    assert out.tolist() == pytest.approx(EXPECTED)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_torch(dtype: torch.dtype) -> None:
    out = apply_window(torch.tensor(HU, dtype=dtype), WindowConfig())
    assert isinstance(out, torch.Tensor) and out.dtype == torch.float32
    assert out.tolist() == pytest.approx(EXPECTED)


def test_small_types_do_not_overflow() -> None:
    assert apply_window(
        np.array([0, 255], np.uint8), WindowConfig(low_hu=-1000, high_hu=510)
    ).tolist() == pytest.approx([1000 / 1510, 1255 / 1510])
