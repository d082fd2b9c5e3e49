"""Quantitative features of one scan: volumes and shares of opacity by lobe, side and both lungs, and by HU band.

They take the place of the features of Tang et al. 2020 (arXiv 2003.11988), without any claim to be theirs. Ours are
:data:`FEATURES`: for each of eight parts (five lobes, each lung, both) its volume and mean HU, and volume and share of
all opacity, ground glass and consolidation; for each lung and both, volume and share of opacity in four HU bands.

Opacity is found by :mod:`m2unet.quantify.opacity`. A part that is absent has no value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import Quantities, quantify

BAND_EDGES_HU = (-700, -500, -300)
"""Opacity is counted below -700, to -500, to -300 and from -300 HU on."""

BANDS = ("below_-700_hu", "-700_to_-500_hu", "-500_to_-300_hu", "from_-300_hu")
BANDED_PARTS = ("right", "left", "lungs")

_KINDS = {
    "opacity": "all opacity",
    "ground_glass": "opacity below the consolidation cut",
    "consolidation": "opacity from the consolidation cut on",
}


@dataclass(frozen=True)
class Feature:
    """One number of a scan.

    Attributes:
        name: ``PART.WHAT``, for example ``RUL.opacity_percent``.
        unit: ``ml``, ``%`` or ``HU``.
        meaning: in words.
    """

    name: str
    unit: str
    meaning: str

    @property
    def column(self) -> str:
        """Heading of its column."""
        return f"{self.name} [{self.unit}]"


def _features() -> tuple[Feature, ...]:
    found: list[Feature] = []
    for part in GROUPS:
        found.append(Feature(f"{part}.volume_ml", "ml", f"volume of {part}"))
        found.append(Feature(f"{part}.mean_hu", "HU", f"mean HU of {part}"))
        for kind, words in _KINDS.items():
            found.append(Feature(f"{part}.{kind}_ml", "ml", f"volume of {words} in {part}"))
            found.append(Feature(f"{part}.{kind}_percent", "%", f"share of {part} that is {words}"))
    for part in BANDED_PARTS:
        for band in BANDS:
            where = f"opacity of {part} with HU {band.removesuffix('_hu').replace('_', ' ')}"
            found.append(Feature(f"{part}.opacity_{band}_ml", "ml", f"volume of {where}"))
            found.append(Feature(f"{part}.opacity_{band}_percent", "%", f"{where}, share of {part}"))
    return tuple(found)


FEATURES: tuple[Feature, ...] = _features()
"""All features, in the order of their columns."""


@dataclass(frozen=True)
class Measured:
    """What the two handcrafted methods know of one scan.

    Attributes:
        features: by name of :data:`FEATURES`; None where the part is absent.
        score: sum of the regions that could be scored (Yang et al. 2020).
        scored: how many of the twenty regions could be.
        lobes_from: ``mask`` or ``model``.
        warnings: codes of the warnings of the scan's quality check.
        slice_mm: distance between slices; None where it was not told.
    """

    features: Mapping[str, float | None]
    score: int
    scored: int
    lobes_from: str
    warnings: tuple[str, ...] = ()
    slice_mm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def measure(
    array: NDArray[np.int16],
    mask: NDArray[Any],
    spacing_mm: tuple[float, float, float],
    *,
    voxel_ml: float | None = None,
    config: OpacityConfig | None = None,
    lobes_from: str = "mask",
) -> Measured:
    """Measure one scan.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes 0-6.
        spacing_mm: ``(z, y, x)``.
        voxel_ml: volume of a voxel where it is not the product of the spacings.
        config: of the opacity rule.
        lobes_from: whose the lobes are.

    Raises:
        M2UNetError: the mask is on another grid, or holds an unknown code.
    """
    found = quantify(array, mask, spacing_mm, config, voxel_ml=voxel_ml)
    volume = voxel_ml or float(np.prod(spacing_mm)) / 1000
    parts = [part for part in found.severity_score.parts.values() if part is not None]
    return Measured(
        features={**_plain(found), **_banded(array, mask, found.opacity_mask, volume)},
        score=sum(parts),
        scored=len(parts),
        lobes_from=lobes_from,
    )


def _plain(found: Quantities) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for part in GROUPS:
        opacity = found.opacity[part]
        values[f"{part}.volume_ml"] = found.volumes[part].volume_ml
        values[f"{part}.mean_hu"] = opacity.mean_hu
        for kind in _KINDS:
            for unit in ("ml", "percent"):
                values[f"{part}.{kind}_{unit}"] = getattr(opacity, f"{kind}_{unit}")
    return values


def _banded(
    array: NDArray[np.int16], mask: NDArray[Any], opacity: NDArray[np.uint8], voxel_ml: float
) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for part in BANDED_PARTS:
        inside = np.isin(mask, GROUPS[part])
        size = int(inside.sum())
        bands = np.digitize(array[inside & (opacity > 0)], BAND_EDGES_HU)
        counts = np.bincount(bands, minlength=len(BANDS))
        for band, count in zip(BANDS, counts.tolist(), strict=True):
            values[f"{part}.opacity_{band}_ml"] = count * voxel_ml if size else None
            values[f"{part}.opacity_{band}_percent"] = 100 * count / size if size else None
    return values


def feature_matrix(measured: Sequence[Measured]) -> NDArray[np.float64]:
    """``[scans, features]``, NaN where a value cannot be had."""
    rows = [[m.features.get(feature.name) for feature in FEATURES] for m in measured]
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)


def features_csv(measured: Mapping[str, Measured]) -> str:
    """One row a scan: its features with units, Yang's score, and whose the lobes were."""
    extra = ["severity_score [0-40]", "regions_scored", "lobes_from"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["scan_id", *(feature.column for feature in FEATURES), *extra])
    for scan_id, found in measured.items():
        values = [found.features.get(feature.name) for feature in FEATURES]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.writerow([scan_id, *cells, found.score, found.scored, found.lobes_from])
    return text.getvalue()


def feature_list_csv() -> str:
    """The list of features: name, unit, meaning."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "unit", "meaning"])
    table.writerows([feature.name, feature.unit, feature.meaning] for feature in FEATURES)
    return text.getvalue()
