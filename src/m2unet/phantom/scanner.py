"""From the Hounsfield units of a chest to the numbers a scanner would store: couch, noise, kernel, field of view."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from m2unet.phantom.grid import Grid
from m2unet.phantom.protocol import SITES, Kernel, Protocol

FloatArray = NDArray[np.float32]

HU_RANGE = (-1024, 3071)
"""Scanners store twelve bits."""

_AIR_BELOW = -900.0  # the couch is drawn where the picture holds air


def scan_grid(protocol: Protocol) -> Grid:
    """The grid of a scan in patient coordinates."""
    half = 0.5 * (protocol.matrix - 1) * protocol.pixel_mm
    y, x = protocol.centre_mm
    return Grid(
        shape=(protocol.slices, protocol.matrix, protocol.matrix),
        spacing_mm=(protocol.step_mm, protocol.pixel_mm, protocol.pixel_mm),
        origin_mm=(protocol.low_mm, y - half, x - half),
    )


def sublayers(protocol: Protocol) -> tuple[float, ...]:
    """Offsets from a slice's centre, in mm, of the thin layers whose mean is that slice; always one at 0."""
    small = protocol.matrix < SITES[protocol.site].matrix
    bounds = (3.5, 11.0) if small else (2.6, 6.5)
    count = 1 + 2 * sum(protocol.thickness_mm > bound for bound in bounds)
    return tuple((k - (count - 1) / 2) * protocol.thickness_mm / count for k in range(count))


def draw_couch(hu: FloatArray, grid: Grid, protocol: Protocol, back_mm: float) -> None:
    """Draw the couch below the patient into the air of ``hu``, in place.

    Args:
        hu: float32 ``[z, y, x]``.
        grid: its grid.
        protocol: gives the couch's shape and its distance.
        back_mm: y of the patient's back.
    """
    _, y, x = grid.axes()
    top = back_mm + protocol.table_gap_mm
    if SITES[protocol.site].table == "curved":
        surface = top + 30.0 - np.square(x - protocol.centre_mm[1]) / 900.0
    else:
        surface = np.full_like(x, top + 6.0)
    depth = y[:, None] - surface
    wide = np.abs(x - protocol.centre_mm[1]) < 215.0
    soft = max(1.0, 0.5 * protocol.pixel_mm)
    shell = np.maximum(np.exp(-np.square(depth / (1.2 * soft))), np.exp(-np.square((depth - 38.0) / (1.2 * soft))))
    foam = np.clip(depth / soft, 0.0, 1.0) * np.clip((38.0 - depth) / soft, 0.0, 1.0)
    couch = ((-1000.0 + 40.0 * foam + 780.0 * shell / soft) * wide - 1000.0 * ~wide).astype(np.float32)
    first = int(np.searchsorted(y, back_mm - 60.0))
    part = hu[:, first:]
    np.copyto(part, np.broadcast_to(couch[first:], part.shape), where=part < _AIR_BELOW)


def expose(hu: FloatArray, grid: Grid, protocol: Protocol, rng: np.random.Generator) -> NDArray[np.int16]:
    """Add noise, apply the kernel, quantise and pad; ``hu`` is used as scratch space.

    Noise is added before the kernel, so that it carries the kernel's texture, and scaled so that its standard deviation
    afterwards is the protocol's; slices that absorb more are noisier.

    Args:
        hu: float32 ``[z, y, x]``, averaged over the slice thickness.
        grid: its grid.
        protocol: how the scan is taken.
        rng: source of the noise; exactly ``hu.size`` deviates are drawn.

    Returns:
        int16 ``[z, y, x]``.
    """
    blur = max(protocol.kernel.blur_mm / protocol.pixel_mm, 0.35)
    load = np.array([float(layer.mean()) + 1000.0 for layer in hu])
    sigma = protocol.noise_hu / noise_gain(protocol.kernel, blur) * np.clip(load / 420.0, 0.6, 1.6) ** 0.75
    stored = np.empty(hu.shape, dtype=np.int16)
    for index, spread in enumerate(sigma):  # slice by slice, within the processor's cache
        hu[index] += np.float32(spread) * rng.standard_normal(hu.shape[1:], dtype=np.float32)
        image = apply_kernel(hu[index : index + 1], protocol.kernel, blur)
        stored[index] = np.rint(np.clip(image[0], *HU_RANGE))
    site = SITES[protocol.site]
    if site.circular:
        stored[:, _outside(grid.shape[1], grid.shape[2])] = site.padding
    return stored


def apply_kernel(image: FloatArray, kernel: Kernel, blur: float) -> FloatArray:
    """Blur with a Gaussian of ``blur`` voxels in plane, then enhance edges."""
    smooth = _gaussian(image, blur)
    if kernel.edge > 0:
        smooth += np.float32(kernel.edge) * (smooth - _gaussian(smooth, 1.4 * blur + 0.4))
    return smooth


@lru_cache(maxsize=64)
def noise_gain(kernel: Kernel, blur: float) -> float:
    """Standard deviation of white noise of deviation 1 after the kernel."""
    impulse = np.zeros((1, 41, 41), dtype=np.float32)
    impulse[0, 20, 20] = 1.0
    return float(np.sqrt(np.square(apply_kernel(impulse, kernel, blur), dtype=np.float64).sum()))


def _gaussian(image: FloatArray, sigma: float) -> FloatArray:
    across = ndimage.gaussian_filter1d(image, sigma, axis=2, truncate=3.0, mode="nearest")
    return ndimage.gaussian_filter1d(across, sigma, axis=1, truncate=3.0, mode="nearest", output=across)


def _outside(rows: int, columns: int) -> NDArray[np.bool_]:
    y = (np.arange(rows) - (rows - 1) / 2) / (rows / 2)
    x = (np.arange(columns) - (columns - 1) / 2) / (columns / 2)
    return np.square(y)[:, None] + np.square(x) > 1.0
