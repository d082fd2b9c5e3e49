"""The values of a label map: whole numbers, whatever type a file stores them in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.errors import ScanError

ROUNDING = 1e-2
"""How far a label may lie from a whole number: rounding of float files, never the fractions of a probability map."""


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.int16]:
    """Labels as int16.

    Args:
        array: of any shape and real type.
        name: of the file, for messages.

    Raises:
        ScanError: fractions, values that are no numbers, or numbers beyond what a label map holds.
    """
    if np.issubdtype(array.dtype, np.floating):
        array = _rounded(array, name)
    limits = np.iinfo(np.int16)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < limits.min or high > limits.max:
        raise ScanError(f"The lobe mask {name} is no label map", found=f"values from {low} to {high}")
    return np.asarray(array, dtype=np.int16)


def _rounded(array: NDArray[np.floating[Any]], name: str) -> NDArray[np.floating[Any]]:
    whole = np.empty_like(array)
    for target, plane in zip(whole, array, strict=True):  # a slice at a time: floats are large
        np.rint(plane, out=target)
        off = ~(np.abs(plane - target) <= ROUNDING)
        if off.any():
            value = float(plane[off].ravel()[0])
            raise ScanError(
                f"The lobe mask {name} holds fractions",
                found=f"e.g. {value:.4g}, as probability maps and interpolated masks do",
                expected="whole numbers",
                mend="export a label map; resample with nearest neighbours",
            )
    return whole
