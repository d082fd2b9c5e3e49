"""From patient coordinates to the upright, fully inspired body and back: rotation, scoliosis, breath."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray, Grid
from m2unet.phantom.parameters import AnatomyParameters
from m2unet.phantom.shape import Points

BREATH_SHARE = 0.28
"""Rise of the diaphragm from full to no breath, as a share of lung height."""


@dataclass(frozen=True)
class Frame:
    """The two coordinate systems of one patient at one depth of breath.

    Attributes:
        parameters: the chest.
        inspiration: 1 full breath, 0 fully breathed out.
    """

    parameters: AnatomyParameters
    inspiration: float = 1.0

    def points(self, grid: Grid) -> Points:
        """Body coordinates of a grid's voxel centres."""
        z, y, x = grid.axes()
        return self.body(z[:, None, None], y[None, :, None], x[None, None, :], grid.spacing_mm)

    def body(self, z: FloatArray, y: FloatArray, x: FloatArray, spacing_mm: tuple[float, float, float]) -> Points:
        """Body coordinates of patient coordinates."""
        p = self.parameters
        inner = self._inner(z)
        if p.scoliosis_mm:
            x = x - self._swing(z)
        if p.rotation_degrees:
            cos, sin = self._turn()
            y, x = cos * y - sin * x, cos * x + sin * y
        return Points(z, np.asarray(y, np.float32), np.asarray(x, np.float32), inner, spacing_mm)

    def patient(self, inner: NDArray[np.float32]) -> NDArray[np.float32]:
        """Patient coordinates of inner body points ``[n, 3]`` (z, y, x)."""
        p = self.parameters
        knots = np.linspace(-600, 900, 1501).astype(np.float32)
        z = np.interp(inner[:, 0], self._inner(knots), knots)
        cos, sin = self._turn()
        y = cos * inner[:, 1] + sin * inner[:, 2]
        x = cos * inner[:, 2] - sin * inner[:, 1] + (self._swing(z) if p.scoliosis_mm else 0)
        return np.stack([z, y, x], 1).astype(np.float32)

    def full_breath(self, z: FloatArray) -> FloatArray:
        """Height at full breath of what now lies at ``z`` (patient coordinates, mm, any shape)."""
        return self._inner(z)

    def _turn(self) -> tuple[np.float32, np.float32]:
        angle = np.deg2rad(self.parameters.rotation_degrees)
        return np.float32(np.cos(angle)), np.float32(np.sin(angle))

    def _swing(self, z: NDArray[np.floating]) -> FloatArray:
        p = self.parameters
        return np.asarray(p.scoliosis_mm * np.sin(np.pi * z / p.lung_height_mm), np.float32)

    def _inner(self, z: FloatArray) -> FloatArray:
        """Height at full breath of what now lies at ``z``: all below the dome moves up, the top of the lung stays."""
        if self.inspiration >= 1:
            return z
        h = self.parameters.lung_height_mm
        rise = (1 - self.inspiration) * BREATH_SHARE * h
        low = 0.30 * h + rise
        share = np.clip((0.95 * h - z) / (0.95 * h - low), 0, 1)
        return np.asarray(z - rise * share, np.float32)
