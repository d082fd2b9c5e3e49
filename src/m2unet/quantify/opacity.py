"""How much of each lobe is aerated, ground-glass or consolidated.

Two answers are given. *Bands* count every voxel of a lobe by its HU alone. *Opacity* is disease only: vessels, airway
walls, fissures and the blurred rim of the lung have the same HU as ground glass, but they are thin; lesions are not.

The cuts, each configurable:

* -950 HU: below it emphysema or over-inflation (Gevenois et al. 1996, *Am J Respir Crit Care Med* 154:187-192).
* -700 HU: well-aerated lung ends (Colombi et al. 2020, *Radiology* 296:E86-E96).
* -300 HU: ground glass ends, consolidation begins (of eight cuts compared in COVID-19 the one whose ground-glass volume
  told patients apart best: *BMC Infectious Diseases* 2021, doi 10.1186/s12879-021-06556-z).

The rule for opacity, after the idea of a median filter, which keeps edges but deletes what fills less than half of its
window (Huang et al. 1979, *IEEE Trans ASSP* 27:13-18):

1. HU are smoothed lightly inside the lobes only (Gaussian; the chest wall does not bleed in).
2. What is as bright as consolidation (-300 HU on) but thin is taken for a vessel: with its blurred halo it abstains
   from the vote. Bright structures have a core where at least half of the lobe around, weighted by a Gaussian of
   ``vessel_mm``, is bright; a tube below 1.18 sigma in radius and a sheet below 1.35 sigma in thickness have none.
   What no core reaches is thin.
3. A voxel is *opaque* when at least half of the voting lobe around it, weighted by a Gaussian of ``vote_mm`` (never
   below 0.85 pixels), is dense, from -700 HU on. A vessel is so opaque inside ground glass and not in aerated lung.
4. Islands smaller than ``least_ml`` are dropped, and so is what lies on the wall of the airway.
5. An opaque voxel is consolidation where it is bright and not thin, else ground glass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from m2unet.anatomy import AIRWAY, LOBE_CODES
from m2unet.errors import M2UNetError
from m2unet.quantify.lobes import GROUPS, check_mask

GROUND_GLASS = 1
CONSOLIDATION = 2
BAND_NAMES = ("emphysema", "aerated", "ground_glass", "consolidation")

_LOWEST_HU, _HIGHEST_HU = -1100, 400
_HALO_MM, _REACH_SHARE = 1.0, 0.1


class OpacityConfig(BaseModel):
    """Cuts and scales of the opacity rule and of the scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    emphysema_below_hu: int = Field(-950, description="Gevenois et al. 1996")
    dense_from_hu: int = Field(-700, description="upper end of well-aerated lung, Colombi et al. 2020")
    consolidation_from_hu: int = Field(-300, description="BMC Infect Dis 2021, s12879-021-06556-z")
    smooth_mm: float = Field(1.0, ge=0, description="sigma of the light smoothing of HU")
    vote_mm: float = Field(2.5, gt=0, description="sigma of the vote that deletes vessels, walls and rims")
    vessel_mm: float = Field(4.0, gt=0, description="sigma that tells a bright vessel from consolidation")
    least_ml: float = Field(0.2, ge=0, description="smaller islands are dropped")
    airway_wall_mm: float = Field(2.0, ge=0, description="distance from the airway's lumen that is never opaque")
    involved_from_percent: float = Field(1.0, ge=0, le=5, description="share from which a part scores above 0")

    @model_validator(mode="after")
    def _ordered(self) -> OpacityConfig:
        if not self.emphysema_below_hu < self.dense_from_hu < self.consolidation_from_hu:
            raise ValueError("the cuts must rise: emphysema, dense, consolidation")
        return self


@dataclass(frozen=True)
class OpacityQuantity:
    """Aeration and opacity of a lobe, a lung or both; everything None with a reason where nothing of it is present.

    Attributes:
        emphysema_ml, aerated_ml, ground_glass_band_ml, consolidation_band_ml: volume by HU alone; they add up to the
            volume of the lobe.
        mean_hu: mean of all its voxels, HU limited to [-1100, 400].
        ground_glass_ml, consolidation_ml, opacity_ml: volume of disease by the opacity rule, and their sum.
        ground_glass_percent, consolidation_percent, opacity_percent: the same as shares of the volume, 0-100.
        opacity_mean_hu: mean HU of the opaque voxels; None also when nothing is opaque.
        reason: why figures are None.
    """

    emphysema_ml: float | None = None
    aerated_ml: float | None = None
    ground_glass_band_ml: float | None = None
    consolidation_band_ml: float | None = None
    mean_hu: float | None = None
    ground_glass_ml: float | None = None
    consolidation_ml: float | None = None
    opacity_ml: float | None = None
    ground_glass_percent: float | None = None
    consolidation_percent: float | None = None
    opacity_percent: float | None = None
    opacity_mean_hu: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def segment_opacity(
    array: NDArray[np.int16],
    mask: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    config: OpacityConfig | None = None,
    exclude: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Find ground glass and consolidation inside the lobes by the rule at the head of this module.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes 0-6; airway (6) is left out of the lobes.
        spacing_mm: ``(z, y, x)``.
        config: cuts and scales; the defaults if None.
        exclude: ``[z, y, x]`` voxels that are never opaque, such as the airway with its wall.

    Returns:
        ``[z, y, x]`` uint8: 0 none, 1 ground glass, 2 consolidation; 0 outside the lobes.

    Raises:
        M2UNetError: the mask is on another grid or holds an unknown code.
    """
    settings = config or OpacityConfig()
    codes = _on_grid(array, mask)
    result = np.zeros(codes.shape, dtype=np.uint8)
    lung = np.isin(codes, LOBE_CODES)
    if exclude is not None:
        lung &= ~exclude
    if not lung.any():
        return result
    box = _bounding_box(lung)
    lung = lung[box]
    everywhere = _Weight(lung, spacing_mm)
    values = np.clip(array[box], _LOWEST_HU, _HIGHEST_HU).astype(np.float32)
    smooth = everywhere.mean(values, settings.smooth_mm) if settings.smooth_mm else values
    bright = lung & (smooth >= settings.consolidation_from_hu)
    core = bright & (everywhere.mean(bright.astype(np.float32), settings.vessel_mm) >= 0.5)
    thin = bright & (everywhere.mean(core.astype(np.float32), settings.vessel_mm / 2) < _REACH_SHARE)
    halo = everywhere.mean(thin.astype(np.float32), _HALO_MM, least_pixels=0.5) > _REACH_SHARE
    voters = _Weight(lung & ~halo, spacing_mm)
    dense = (smooth >= settings.dense_from_hu).astype(np.float32)
    opaque = lung & (voters.mean(dense, settings.vote_mm, least_pixels=0.85) >= 0.5)
    opaque = _drop_islands(opaque, settings.least_ml * 1000 / float(np.prod(spacing_mm)))
    result[box] = np.where(opaque, np.where(bright & ~thin, CONSOLIDATION, GROUND_GLASS), 0)
    return result


class _Weight:
    """Gaussian means over the lung's voxels only."""

    def __init__(self, lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> None:
        self.lung = lung.astype(np.float32)
        self.spacing_mm = spacing_mm

    def mean(self, values: NDArray[np.float32], sigma_mm: float, least_pixels: float = 0.0) -> NDArray[np.float32]:
        """Weighted mean at each voxel, 0 far outside the lung; sigma is at least so many pixels."""
        from scipy.ndimage import gaussian_filter

        sigma_mm = max(sigma_mm, least_pixels * max(self.spacing_mm[1:]))
        sigma = [sigma_mm / s for s in self.spacing_mm]
        above = gaussian_filter(values * self.lung, sigma, mode="constant", truncate=3.0)
        below = gaussian_filter(self.lung, sigma, mode="constant", truncate=3.0)
        return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-6)


def _drop_islands(mask: NDArray[np.bool_], least_voxels: float) -> NDArray[np.bool_]:
    if least_voxels <= 1 or not mask.any():
        return mask
    import SimpleITK as sitk  # noqa: N813

    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    labels = sitk.GetArrayFromImage(parts)
    sizes = np.bincount(labels.reshape(-1))
    keep = sizes >= least_voxels
    keep[0] = False
    return keep[labels]


def quantify_opacity(
    array: NDArray[np.int16],
    mask: NDArray[Any],
    opacity: NDArray[np.uint8],
    voxel_ml: float,
    config: OpacityConfig | None = None,
) -> dict[str, OpacityQuantity]:
    """Bands and opacity of each lobe, each lung and both.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes 0-6.
        opacity: ``[z, y, x]`` 0 none, 1 ground glass, 2 consolidation; what lies outside the lobes is not counted.
        voxel_ml: volume of one voxel, millilitres.
        config: the HU cuts; the defaults if None.

    Returns:
        By name of :data:`m2unet.quantify.lobes.GROUPS`.

    Raises:
        M2UNetError: the grids differ, or a code is unknown.
    """
    settings = config or OpacityConfig()
    codes = _on_grid(array, mask)
    voxel_ml = float(voxel_ml)
    if opacity.shape != codes.shape or (opacity.size and int(opacity.max()) > CONSOLIDATION):
        raise M2UNetError("The opacity mask is not one of this grid with codes 0-2", found=opacity.shape)
    table = _histogram(array, codes, opacity)
    return {name: _quantity(table[list(group)].sum(axis=0), voxel_ml, settings) for name, group in GROUPS.items()}


def _histogram(array: NDArray[np.int16], codes: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxel counts ``[7 lobe codes, 3 opacity codes, HU from -1100 to 400]``."""
    span = _HIGHEST_HU - _LOWEST_HU + 1
    table = np.zeros((AIRWAY + 1) * 3 * span, dtype=np.int64)
    for z in range(len(codes)):  # a slice at a time keeps the index arrays small
        held = codes[z] > 0
        if held.any():
            hu = np.clip(array[z][held].astype(np.int64), _LOWEST_HU, _HIGHEST_HU) - _LOWEST_HU
            key = (codes[z][held].astype(np.int64) * 3 + opacity[z][held]) * span + hu
            table += np.bincount(key, minlength=table.size)
    return table.reshape(AIRWAY + 1, 3, span)


def _quantity(table: NDArray[np.int64], voxel_ml: float, config: OpacityConfig) -> OpacityQuantity:
    """Figures of one group from its ``[3, HU]`` counts."""
    total = int(table.sum())
    if not total:
        return OpacityQuantity(reason="nothing of it is in the mask")
    hu = np.arange(_LOWEST_HU, _HIGHEST_HU + 1)
    by_hu, by_opacity = table.sum(axis=0), table.sum(axis=1)
    cuts = [config.emphysema_below_hu, config.dense_from_hu, config.consolidation_from_hu]
    bands = [part.sum() * voxel_ml for part in np.split(by_hu, np.searchsorted(hu, cuts))]
    opaque = table[1:].sum(axis=0)
    count = int(opaque.sum())
    ground_glass, consolidation = (int(n) for n in by_opacity[1:])
    return OpacityQuantity(
        emphysema_ml=float(bands[0]),
        aerated_ml=float(bands[1]),
        ground_glass_band_ml=float(bands[2]),
        consolidation_band_ml=float(bands[3]),
        mean_hu=float(by_hu @ hu / total),
        ground_glass_ml=ground_glass * voxel_ml,
        consolidation_ml=consolidation * voxel_ml,
        opacity_ml=count * voxel_ml,
        ground_glass_percent=100 * ground_glass / total,
        consolidation_percent=100 * consolidation / total,
        opacity_percent=100 * count / total,
        opacity_mean_hu=float(opaque @ hu / count) if count else None,
        reason=None if count else "nothing is opaque, so opacity has no mean HU",
    )


def opacity_percents(parts: NDArray[np.uint8], opacity: NDArray[np.uint8], names: Mapping[int, str]) -> dict[str, Any]:
    """Opacified share of each part, such as the twenty regions or the lobes.

    Args:
        parts: ``[z, y, x]`` code of the part each voxel belongs to, 0 for none.
        opacity: ``[z, y, x]`` 0 none, else opaque.
        names: name of each part by code.

    Returns:
        By name, percent 0-100, or None where the part has no voxel.
    """
    size = max(names) + 1
    total = np.bincount(parts.reshape(-1), minlength=size)
    hit = np.bincount(parts[opacity > 0], minlength=size)
    return {name: float(100 * hit[code] / total[code]) if total[code] else None for code, name in names.items()}


def _on_grid(array: NDArray[np.int16], mask: NDArray[Any]) -> NDArray[np.uint8]:
    codes = check_mask(mask)
    if array.shape != codes.shape:
        raise M2UNetError("The mask is not on the image's grid", found=codes.shape, expected=array.shape)
    return codes


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    spans = []
    for axis in range(mask.ndim):
        held = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        spans.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(spans)
