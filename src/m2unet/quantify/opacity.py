"""How much of each lobe is aerated, ground-glass or consolidated.

Two answers are given. *Bands* count every voxel of a lobe by its HU alone. *Opacity* is disease only: vessels, airway
walls, fissures and the blurred rim of the lung have the same HU as ground glass, but they are thin; lesions are not.

The cuts, each configurable:

* -950 HU: below it emphysema or over-inflation (of eight cuts from -900 to -970 HU the only one at which CT did not
  differ from the emphysema measured on lung sections: Gevenois et al. 1995, *Am J Respir Crit Care Med* 152:653-657).
* -700 HU: well-aerated lung ends; a convention, commonly referred to Colombi et al. 2020 (*Radiology* 296:E86-E96),
  whose text we have not seen. For bands only.
* -300 HU: ground glass ends, consolidation begins (of eight cuts the one whose ground-glass volume told COVID-19 from
  other suspected cases best, AUC 0.77 in 9 and 38 patients: *BMC Infectious Diseases* 2021, doi
  10.1186/s12879-021-06556-z). A small study, about diagnosis; it says little of where consolidation begins.

The rule for opacity, after the idea of a median filter, which keeps edges but deletes what fills less than half of its
window:

1. HU are smoothed lightly inside the lobes only (Gaussian; the chest wall does not bleed in).
2. A voxel is *dense* from 130 HU above this scan's own aerated lung (the peak of its histogram), within -760 to -650:
   aerated lung differs by 100 HU between breaths and kernels, so a cut of the scan's own is sounder than a fixed one
   (Berta et al. 2021, *Physica Medica* 82:28-39; Mazzilli et al. 2021, *Applied Sciences* 11:1238).
3. Two sorts of voxel hardly vote. What is bright (-600 HU on) but thin is taken for a vessel, with its blurred halo:
   bright structures have a core where at least half of the lobe around, weighted by a Gaussian of ``vessel_mm``, is
   bright; a tube below 1.18 sigma in radius and a sheet below 1.35 sigma in thickness have none, and what no core
   reaches is thin. And the rim of the lobes, whose HU are blurred with what lies outside.
4. A voxel is *opaque* when at least half of the voting lobe around it, weighted by a Gaussian of ``vote_mm`` (never
   below 1.2 pixels), is dense. A vessel is so opaque inside ground glass and not in aerated lung.
5. Islands smaller than ``least_ml`` are dropped, and so is what lies on the wall of the airway.
6. An opaque voxel is consolidation from -300 HU on unless thin, else ground glass.

Scans finer than 1.8 mm are judged on blocks of voxels of up to that size; the rule's own scales are larger.

What the rule cannot tell: dependent atelectasis, scars and nodules above its scale are opacities to it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from m2unet.anatomy import AIRWAY
from m2unet.errors import M2UNetError
from m2unet.quantify.boxes import Part, code_boxes, union_box
from m2unet.quantify.lobes import GROUPS, bounding_box, check_mask

GROUND_GLASS = 1
CONSOLIDATION = 2

_LOWEST_HU, _HIGHEST_HU = -1100, 400
_HALO_MM, _REACH_SHARE = 1.0, 0.1
_UNSURE_VOTE = 0.05
_VOTE_PIXELS = 1.2
_BLOCK_MM = 1.8


class OpacityConfig(BaseModel):
    """Cuts and scales of the opacity rule and of the scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    emphysema_below_hu: int = Field(-950, description="band; Gevenois et al. 1995")
    ground_glass_from_hu: int = Field(-700, description="band; end of well-aerated lung, by convention")
    consolidation_from_hu: int = Field(-300, description="band and opacity; BMC Infect Dis 2021, s12879-021-06556-z")
    dense_above_aerated_hu: int = Field(130, gt=0, description="dense from so far above the scan's aerated lung")
    dense_between_hu: tuple[int, int] = Field((-760, -650), description="limits of the cut so found")
    smooth_mm: float = Field(0.7, ge=0, description="sigma of the light smoothing of HU")
    vote_mm: float = Field(3.5, gt=0, description="sigma of the vote that deletes vessels, walls and rims")
    vessel_from_hu: int = Field(-600, description="HU from which a thin structure may be a vessel")
    vessel_mm: float = Field(5.0, gt=0, description="sigma that tells a vessel from consolidation")
    rim_mm: float = Field(2.0, ge=0, description="outer layer of the lobes, blurred with what lies outside")
    least_ml: float = Field(1.0, ge=0, description="smaller islands are dropped")
    airway_wall_mm: float = Field(2.0, ge=0, description="distance from the airway's lumen that is never opaque")
    involved_from_percent: float = Field(1.0, ge=0, le=5, description="share from which a part scores above 0")

    @model_validator(mode="after")
    def _ordered(self) -> OpacityConfig:
        if not self.emphysema_below_hu < self.ground_glass_from_hu < self.consolidation_from_hu:
            raise ValueError("the cuts must rise: emphysema, ground glass, consolidation")
        if not self.dense_between_hu[0] <= self.dense_between_hu[1] <= self.consolidation_from_hu:
            raise ValueError("the limits of the dense cut must rise and lie below consolidation")
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
    exclude: Part | None = None,
) -> NDArray[np.uint8]:
    """Find ground glass and consolidation inside the lobes by the rule at the head of this module.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes 0-6; airway (6) is left out of the lobes.
        spacing_mm: ``(z, y, x)``.
        config: cuts and scales; the defaults if None.
        exclude: voxels that are never opaque, such as the airway with its wall.

    Returns:
        ``[z, y, x]`` uint8: 0 none, 1 ground glass, 2 consolidation; 0 outside the lobes.

    Raises:
        M2UNetError: the mask is on another grid or holds an unknown code.
    """
    settings = config or OpacityConfig()
    codes = _on_grid(array, mask)
    result = np.zeros(codes.shape, dtype=np.uint8)
    outer = union_box(box for code, box in code_boxes(codes).items() if code != AIRWAY)
    if outer is None:
        return result
    lung = codes[outer] > 0
    lung &= codes[outer] != AIRWAY
    if exclude is not None:
        exclude.take_from(lung, outer)
    box = bounding_box(lung)
    if box is None:
        return result
    blocks = _Blocks(lung[box], spacing_mm)
    blocks.spread(_classify(blocks.mean(array[outer][box]), blocks, settings), result[outer][box])
    return result


def _classify(values: NDArray[np.float32], blocks: _Blocks, settings: OpacityConfig) -> NDArray[np.uint8]:
    """The rule, on the working grid."""
    lung, spacing_mm = blocks.share > 0, blocks.spacing_mm
    everyone = _Vote(blocks.share, spacing_mm)
    smooth = everyone.mean(values, settings.smooth_mm) if settings.smooth_mm else values
    thin = _without_core(lung & (smooth >= settings.vessel_from_hu), everyone, settings)
    halo = everyone.mean(thin.astype(np.float32), _HALO_MM, least_pixels=0.5) > _REACH_SHARE
    unsure = halo | _rim(lung, spacing_mm, settings.rim_mm)
    voters = _Vote(np.where(unsure, np.float32(_UNSURE_VOTE), np.float32(1)) * blocks.share, spacing_mm)
    dense = (smooth >= dense_cut(smooth[lung], settings)).astype(np.float32)
    opaque = lung & (voters.mean(dense, settings.vote_mm, least_pixels=_VOTE_PIXELS) >= 0.5)
    opaque = _drop_islands(opaque, settings.least_ml * 1000 / float(np.prod(spacing_mm)))
    firm = (smooth >= settings.consolidation_from_hu) & ~thin
    return np.where(opaque, np.where(firm, CONSOLIDATION, GROUND_GLASS), 0).astype(np.uint8)


class _Blocks:
    """A working grid of about 1.5 mm: blocks of voxels, as the rule's scales are several millimetres.

    Attributes:
        share: ``[z, y, x]`` share of each block inside the lobes, 0-1.
        spacing_mm: of the blocks, ``(z, y, x)``.
    """

    def __init__(self, lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> None:
        self._shape = lung.shape
        self._factors = tuple(max(1, int(_BLOCK_MM / s)) for s in spacing_mm)
        z, y, x = (s * f for s, f in zip(spacing_mm, self._factors, strict=True))
        self.spacing_mm = (z, y, x)
        self._lung = lung
        self.share = self._sum() / np.float32(np.prod(self._factors))

    def _sum(self, array: NDArray[np.int16] | None = None) -> NDArray[np.float32]:
        """Sums of the lobes' HU over each block, or their count; a layer of blocks at a time, to hold few floats."""
        layers = []
        for start in range(0, self._shape[0], self._factors[0]):
            part = self._lung[start : start + self._factors[0]].astype(np.float32)
            if array is not None:
                part *= np.clip(array[start : start + self._factors[0]], _LOWEST_HU, _HIGHEST_HU)
            for axis, factor in enumerate(self._factors):
                if factor > 1:
                    part = np.add.reduceat(part, np.arange(0, part.shape[axis], factor), axis=axis)
            layers.append(part)
        return np.concatenate(layers)

    def mean(self, array: NDArray[np.int16]) -> NDArray[np.float32]:
        """Mean HU over the lobe voxels of each block, 0 where there are none."""
        whole = self.share * np.float32(np.prod(self._factors))
        return np.divide(self._sum(array), whole, out=np.zeros_like(whole), where=whole > 0)

    def spread(self, codes: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Give every voxel of the lobes its block's code, a layer of blocks at a time."""
        deep, high, wide = self._factors
        for number, layer in enumerate(codes):
            plane = layer.repeat(high, axis=0).repeat(wide, axis=1)[: self._shape[1], : self._shape[2]]
            span = slice(number * deep, min((number + 1) * deep, self._shape[0]))
            np.copyto(out[span], plane, where=self._lung[span])


def dense_cut(hu: NDArray[np.floating[Any]], config: OpacityConfig | None = None) -> float:
    """The HU from which a voxel of this scan is dense.

    Args:
        hu: ``[n]`` HU of all lobe voxels.
        config: limits and distance from aerated lung; the defaults if None.

    Returns:
        So far above the peak of aerated lung, within the limits; the upper limit when hardly a voxel is aerated.
    """
    from scipy.ndimage import gaussian_filter1d

    settings = config or OpacityConfig()
    low, high = settings.dense_between_hu
    counts, edges = np.histogram(hu, bins=np.arange(-1000, high + 1, 10))
    if counts.sum() < 0.05 * hu.size:
        return float(high)
    peak = edges[gaussian_filter1d(counts.astype(np.float64), 1.5, mode="constant").argmax()] + 5
    return float(np.clip(peak + settings.dense_above_aerated_hu, low, high))


def _without_core(bright: NDArray[np.bool_], everyone: _Vote, settings: OpacityConfig) -> NDArray[np.bool_]:
    """Bright voxels that no thick part of a bright structure reaches."""
    core = bright & (everyone.mean(bright.astype(np.float32), settings.vessel_mm) >= 0.5)
    return bright & (everyone.mean(core.astype(np.float32), settings.vessel_mm / 2) < _REACH_SHARE)


def _rim(lung: NDArray[np.bool_], spacing_mm: tuple[float, float, float], rim_mm: float) -> NDArray[np.bool_]:
    """Outermost voxels of the lobes: those with a neighbour outside them, or nearer to it than ``rim_mm``."""
    from scipy.ndimage import binary_erosion

    inner = binary_erosion(lung, border_value=1)
    for axis, step in enumerate(spacing_mm):
        more = int(rim_mm / step) - 1
        if more > 0:
            line = np.ones([3 if a == axis else 1 for a in range(3)], dtype=bool)
            inner = binary_erosion(inner, line, iterations=more, border_value=1)
    return lung & ~inner


class _Vote:
    """Gaussian means in which each voxel has a weight, 0 outside the lobes."""

    def __init__(self, weight: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> None:
        self.weight = weight
        self.spacing_mm = spacing_mm

    def mean(self, values: NDArray[np.float32], sigma_mm: float, least_pixels: float = 0.0) -> NDArray[np.float32]:
        """Weighted mean at each voxel, 0 far outside the lung; sigma is at least so many pixels."""
        from scipy.ndimage import gaussian_filter

        sigma_mm = max(sigma_mm, least_pixels * max(self.spacing_mm[1:]))
        sigma = [sigma_mm / s for s in self.spacing_mm]
        above = gaussian_filter(values * self.weight, sigma, mode="constant", truncate=3.0)
        below = gaussian_filter(self.weight, sigma, mode="constant", truncate=3.0)
        return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-6)


def _drop_islands(mask: NDArray[np.bool_], least_voxels: float) -> NDArray[np.bool_]:
    if least_voxels <= 1 or not mask.any():
        return mask
    import SimpleITK as sitk

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
    cuts = [config.emphysema_below_hu, config.ground_glass_from_hu, config.consolidation_from_hu]
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


def opacity_percents(total: NDArray[Any], opaque: NDArray[Any], names: Mapping[int, str]) -> dict[str, float | None]:
    """Opacified share of each part, such as the twenty regions or the lobes.

    Args:
        total: voxels of each part, by its code.
        opaque: how many of them are opaque, likewise.
        names: name of each part by code.

    Returns:
        By name, percent 0-100, or None where the part has no voxel.
    """
    return {name: float(100 * opaque[code] / total[code]) if total[code] else None for code, name in names.items()}


def _on_grid(array: NDArray[np.int16], mask: NDArray[Any]) -> NDArray[np.uint8]:
    codes = check_mask(mask)
    if array.shape != codes.shape:
        raise M2UNetError("The mask is not on the image's grid", found=codes.shape, expected=array.shape)
    return codes
