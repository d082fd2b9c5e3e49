"""A parametric digital chest: parameters, and the body built from them."""

from __future__ import annotations

from m2unet.phantom.grid import FAR_MM, Grid, Tissues

__all__ = ["FAR_MM", "Grid", "Tissues"]
