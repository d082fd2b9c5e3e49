"""Where each label of a mask lies: volume, centre, spread and side, counted in one pass over the voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.volume import Volume

Triple = tuple[float, float, float]
LabelSide = Literal["right", "left", "both sides", "middle"]

_FINE = 256  # pixels along a side of a slice; finer slices are thinned out for centres, never for volumes
_BODY_HU = -500
_TWO_SIDED = 0.78
"""Share of the spread along x that lies between two groups: 0.64-0.74 in lobes, 0.81-0.91 in labels of both lungs
(51 published lobe maps of LUNA16)."""
_BALANCE = 0.2
_LUNGS_APART = 0.25
"""Of the body's width; centres of the two lungs are 0.3-0.5 apart."""
_AWAY = 0.04


@dataclass(frozen=True)
class Place:
    """Where one label lies; all in mm from the first voxel of the canonical grid, ``(z, y, x)``.

    Attributes:
        volume_ml: its volume.
        centre_mm: its centre.
        spread_mm: standard deviation about it.
        low_mm, high_mm: its first and last voxel.
        two_sided: share of the variance along x between the two groups that split it best; near 1 for two lungs.
        minor_share: share of the smaller of those groups.
        groups_mm: their centres along x.
    """

    volume_ml: float
    centre_mm: Triple
    spread_mm: Triple
    low_mm: Triple
    high_mm: Triple
    two_sided: float
    minor_share: float
    groups_mm: tuple[float, float]


@dataclass(frozen=True)
class LabelPlaces:
    """The labels of a mask and the body they lie in.

    Attributes:
        places: by label; the background is left out.
        middle_mm: x of the body's middle, None where no body is seen.
        width_mm: width of the body.
    """

    places: Mapping[int, Place]
    middle_mm: float | None
    width_mm: float

    def offset(self, place: Place) -> float:
        """How far a label lies from the middle, in widths of the body; positive to the patient's left."""
        if self.middle_mm is None or not self.width_mm:
            return 0.0
        return (place.centre_mm[2] - self.middle_mm) / self.width_mm

    def in_both_lungs(self, place: Place) -> bool:
        """Whether a label falls into two groups, one on each side and as far from each other as the lungs are."""
        low, high = place.groups_mm
        two = place.two_sided > _TWO_SIDED and place.minor_share > _BALANCE
        around = self.middle_mm is None or low < self.middle_mm < high
        return two and around and high - low > _LUNGS_APART * self.width_mm

    def side(self, place: Place) -> LabelSide:
        """On which side a label lies."""
        if self.in_both_lungs(place):
            return "both sides"
        offset = self.offset(place)
        return "middle" if abs(offset) < _AWAY else "left" if offset > 0 else "right"

    def described(self) -> str:
        """Each label with its volume and side, e.g. ``1: 2444 ml, right; 2: 2170 ml, left``."""
        if not self.places:
            return "no label at all"
        shown = [
            f"{label}: {_ml(place.volume_ml)} ml, {self.side(place)}" for label, place in list(self.places.items())[:12]
        ]
        more = len(self.places) - len(shown)
        return "; ".join(shown) + (f"; and {more} more labels" if more > 0 else "")


def _ml(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.2g}"


def measure_labels(mask: NDArray[np.int16], volume: Volume) -> LabelPlaces:
    """Measure where every label of a mask lies.

    Args:
        mask: ``[z, y, x]`` labels on the volume's grid; 0 is background.
        volume: the scan.
    """
    stored = np.ascontiguousarray(mask).view(np.uint16)  # a label's bits find its row in the table
    counts = np.zeros(1 << 16, dtype=np.int64)
    for plane in stored:
        counts += np.bincount(plane.reshape(-1), minlength=1 << 16)
    counts[0] = 0
    labels = np.flatnonzero(counts)
    table = np.zeros(1 << 16, dtype=np.int64)
    table[labels] = np.arange(len(labels))
    profiles, step = _profiles(stored, table, len(labels))
    spacing = tuple(mm * thin for mm, thin in zip(volume.spacing_mm, (1, step, step), strict=True))
    places = {
        int(np.uint16(label).astype(np.int16)): _place(
            counts[label] * volume.voxel_ml, [p[k] for p in profiles], spacing
        )
        for k, label in enumerate(labels)
        if all(p[k].any() for p in profiles)
    }
    middle, width = _body(volume)
    return LabelPlaces(dict(sorted(places.items())), middle, width)


def _profiles(stored: NDArray[np.uint16], table: NDArray[np.int64], labels: int) -> tuple[list[NDArray[np.int64]], int]:
    """Voxels of each label along z, y and x, and every how many in-plane voxels were counted."""
    step = max(1, min(stored.shape[1:]) // _FINE)
    thinned = stored[:, ::step, ::step]
    along = [np.zeros((labels, size), dtype=np.int64) for size in thinned.shape]
    rows, columns = thinned.shape[1:]
    for z, plane in enumerate(thinned):
        flat = plane.reshape(-1)
        at = np.flatnonzero(flat)
        if not len(at):
            continue
        label = table[flat[at]]
        y, x = np.divmod(at, columns)
        along[0][:, z] = np.bincount(label, minlength=labels)
        along[1] += np.bincount(label * rows + y, minlength=labels * rows).reshape(labels, rows)
        along[2] += np.bincount(label * columns + x, minlength=labels * columns).reshape(labels, columns)
    return along, step


def _place(volume_ml: float, profiles: list[NDArray[np.int64]], spacing: tuple[float, ...]) -> Place:
    centre, spread, low, high = [], [], [], []
    for profile, mm in zip(profiles, spacing, strict=True):
        at = np.arange(len(profile)) * mm
        mean = float(profile @ at / profile.sum())
        centre.append(mean)
        spread.append(float(np.sqrt(profile @ (at - mean) ** 2 / profile.sum())))
        inside = np.flatnonzero(profile)
        low.append(float(at[inside[0]]))
        high.append(float(at[inside[-1]]))
    two_sided, minor, groups = _split(profiles[2])
    z, y, x = range(3)
    return Place(
        float(volume_ml),
        (centre[z], centre[y], centre[x]),
        (spread[z], spread[y], spread[x]),
        (low[z], low[y], low[x]),
        (high[z], high[y], high[x]),
        two_sided,
        minor,
        (groups[0] * spacing[2], groups[1] * spacing[2]),
    )


def _split(profile: NDArray[np.int64]) -> tuple[float, float, tuple[float, float]]:
    """Otsu's best split of a profile.

    Returns:
        Variance between the two groups by the whole variance, share of the smaller group, centres of both.
    """
    share = profile / profile.sum()
    at = np.arange(len(profile))
    mean = float(share @ at)
    variance = float(share @ (at - mean) ** 2)
    if variance == 0:
        return 0.0, 0.0, (mean, mean)
    weight, moment = np.cumsum(share)[:-1], np.cumsum(share * at)[:-1]
    inside = (weight > 0) & (weight < 1 - 1e-12)
    between = np.zeros(len(weight))
    between[inside] = (mean * weight - moment)[inside] ** 2 / (weight * (1 - weight))[inside]
    best = int(between.argmax())
    below = float(weight[best])
    groups = float(moment[best] / below), float((mean - moment[best]) / (1 - below))
    return float(between[best]) / variance, min(below, 1 - below), groups


def _body(volume: Volume) -> tuple[float | None, float]:
    """Middle and width of the body along x, from every few voxels."""
    steps = [max(1, size // most) for size, most in zip(volume.shape, (32, 64, 64), strict=True)]
    tissue = volume.array[:: steps[0], :: steps[1], :: steps[2]] > _BODY_HU
    columns = np.flatnonzero(tissue.mean(axis=(0, 1)) > 0.02)
    if len(columns) < 2:
        return None, 0.0
    mm = volume.spacing_mm[2] * steps[2]
    return float(columns[0] + columns[-1]) / 2 * mm, float(columns[-1] - columns[0] + 1) * mm
