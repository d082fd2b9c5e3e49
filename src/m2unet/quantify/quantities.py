"""Everything this room measures in one scan, from the image and a lobe mask of any origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LOBES
from m2unet.quantify.airways import Airways, find_airways, near_airway
from m2unet.quantify.lobes import GROUPS, LobeQuantity, count_codes, find_cuts, lobe_volumes
from m2unet.quantify.opacity import (
    OpacityConfig,
    OpacityQuantity,
    opacity_percents,
    quantify_opacity,
    segment_opacity,
)
from m2unet.quantify.regions import REGIONS, count_regions
from m2unet.quantify.scores import Score, pan_score, yang_score


@dataclass(frozen=True)
class RegionQuantity:
    """One of the twenty regions.

    Attributes:
        volume_ml, opacity_percent, score: None where the region is absent.
        lobe: abbreviation of its lobe.
        segment: bronchopulmonary segment.
        reason: why figures are None.
    """

    volume_ml: float | None
    opacity_percent: float | None
    score: int | None
    lobe: str
    segment: str
    reason: str | None = None


@dataclass(frozen=True)
class Quantities:
    """All figures of one scan.

    Attributes:
        volumes: by name of :data:`m2unet.quantify.lobes.GROUPS`.
        opacity: the same names.
        regions: by name of :data:`m2unet.quantify.regions.REGIONS`.
        severity_score: Yang et al. 2020, 0-40.
        lobar_score: Pan et al. 2020, 0-25.
        airway_ml: volume of the airway outside the lobes, None where none was found.
        airway_reason: why not.
        opacity_mask: ``[z, y, x]`` uint8, 0 none, 1 ground glass, 2 consolidation.
        config: cuts and scales used.
    """

    volumes: Mapping[str, LobeQuantity]
    opacity: Mapping[str, OpacityQuantity]
    regions: Mapping[str, RegionQuantity]
    severity_score: Score
    lobar_score: Score
    airway_ml: float | None
    airway_reason: str | None
    opacity_mask: NDArray[np.uint8]
    config: OpacityConfig

    def to_dict(self) -> dict[str, Any]:
        """The figures, JSON-ready, without the masks."""
        return {
            "config": self.config.model_dump(),
            "lobes": {
                name: {**self.volumes[name].to_dict(), "opacity": self.opacity[name].to_dict()} for name in GROUPS
            },
            "airway": {"volume_ml": self.airway_ml, "reason": self.airway_reason},
            "regions": {name: asdict(region) for name, region in self.regions.items()},
            "scores": [self.severity_score.to_dict(), self.lobar_score.to_dict()],
        }

    def lobe_rows(self) -> list[dict[str, Any]]:
        """One flat row for each lobe, each lung and both, for a table."""
        rows = []
        for name in GROUPS:
            volume, opacity = self.volumes[name].to_dict(), self.opacity[name].to_dict()
            volume["cut"] = "; ".join(volume["cut"])
            reasons = dict.fromkeys(r for r in (volume.pop("reason"), opacity.pop("reason")) if r)
            score = self.lobar_score.parts.get(name)
            rows.append({"part": name, **volume, **opacity, "lobar_score": score, "reason": "; ".join(reasons) or None})
        return rows

    def region_rows(self) -> list[dict[str, Any]]:
        """One flat row for each of the twenty regions, for a table."""
        return [{"region": name, **asdict(region)} for name, region in self.regions.items()]


def quantify(
    array: NDArray[np.int16],
    mask: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    config: OpacityConfig | None = None,
    *,
    voxel_ml: float | None = None,
) -> Quantities:
    """Measure volumes, opacity, regions and scores of one scan.

    Args:
        array: ``[z, y, x]`` HU; z towards the head, y towards the back, x towards the patient's left.
        mask: ``[z, y, x]`` lobe codes 0-6 of :mod:`m2unet.anatomy`.
        spacing_mm: ``(z, y, x)``.
        config: HU cuts and scales of the opacity rule; the defaults if None.
        voxel_ml: volume of a voxel where it is not the product of the spacings (a tilted gantry).

    Raises:
        M2UNetError: the mask is on another grid, or holds an unknown code.
    """
    settings = config or OpacityConfig()
    airways = find_airways(array, mask, spacing_mm)
    exclude = near_airway(airways, spacing_mm, settings.airway_wall_mm)
    opacity = segment_opacity(array, mask, spacing_mm, settings, exclude)
    return gather(array, mask, spacing_mm, opacity, airways=airways, config=settings, voxel_ml=voxel_ml)


def gather(
    array: NDArray[np.int16],
    mask: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    opacity: NDArray[np.uint8],
    *,
    airways: Airways,
    config: OpacityConfig,
    voxel_ml: float | None = None,
) -> Quantities:
    """All figures from an opacity mask of any origin, for example one drawn by hand.

    Args:
        array, mask, spacing_mm, config, voxel_ml: as :func:`quantify`.
        opacity: ``[z, y, x]`` 0 none, 1 ground glass, 2 consolidation.
        airways: of :func:`m2unet.quantify.airways.find_airways`.
    """
    voxel_ml = voxel_ml or float(np.prod(spacing_mm)) / 1000
    counts, opaque = count_regions(mask, opacity, spacing_mm)
    region_percents = opacity_percents(counts, opaque, {region.code: region.name for region in REGIONS})
    lobes, opaque = count_codes(mask, AIRWAY + 1), count_codes(mask, AIRWAY + 1, opacity)
    lobe_percents = opacity_percents(lobes, opaque, {lobe.code: lobe.abbreviation for lobe in LOBES})
    severity = yang_score(region_percents, involved_from=config.involved_from_percent)
    table = {
        region.name: RegionQuantity(
            volume_ml=float(counts[region.code] * voxel_ml) if counts[region.code] else None,
            opacity_percent=region_percents[region.name],
            score=severity.parts[region.name],
            lobe=region.lobe,
            segment=region.segment,
            reason=None if counts[region.code] else "its lobe is absent from the mask or too small to divide",
        )
        for region in REGIONS
    }
    return Quantities(
        volumes=lobe_volumes(mask, voxel_ml, find_cuts(mask, spacing_mm, array)),
        opacity=quantify_opacity(array, mask, opacity, voxel_ml, config),
        regions=table,
        severity_score=severity,
        lobar_score=pan_score(lobe_percents, involved_from=config.involved_from_percent),
        airway_ml=airways.volume_ml,
        airway_reason=airways.reason,
        opacity_mask=opacity,
        config=config,
    )
