"""Order the slices of one DICOM series by where they lie, and find every fault of their geometry.

Nothing is taken from file names or instance numbers: a slice's place is its position along the common normal of the
planes (DICOM PS3.3 C.7.6.2). ITK's series reader accepts gaps and tilted gantries in silence, hence this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.dicom_header import GEOMETRY, Slice, element, unusable_elements, whole
from m2unet.ct.findings import Finding, finding

SAME_PLACE_MM = 0.01
REGULAR = 0.05
"""Distances may differ by this share of the usual one before anything is said, for rounded headers; and by 0.02 mm."""

UNEVEN = 0.10
"""Up to this share, uneven distances are averaged with a warning."""

TILT_DEGREES = 0.5


@dataclass(frozen=True)
class Stack:
    """Slices in order, one a place.

    Attributes:
        slices: by ascending position along ``normal``.
        normal: unit normal of the planes.
        step: LPS vector from a slice to the next, mm; slanted with a tilted gantry.
        findings: about geometry; any error forbids the stack's use.
        twins: pairs of slices at one place, kept and dropped, whose voxels are still to be compared.
    """

    slices: tuple[Slice, ...]
    normal: NDArray[np.float64]
    step: NDArray[np.float64]
    findings: tuple[Finding, ...]
    twins: tuple[tuple[Slice, Slice], ...] = ()

    @property
    def spacing_mm(self) -> float:
        """Distance of slices along the normal."""
        return float(self.step @ self.normal)

    @property
    def coverage_mm(self) -> float:
        """Extent along the normal."""
        return self.spacing_mm * len(self.slices)

    @property
    def axial(self) -> bool:
        """Whether the normal runs along the body (less than 37 degrees off)."""
        return abs(float(self.normal[2])) > 0.8

    @property
    def usable(self) -> bool:
        """Whether no finding is an error."""
        return not any(f.level == "error" for f in self.findings)


def arrange(slices: Sequence[Slice]) -> Stack:
    """Make a stack of one series' slices.

    Args:
        slices: at least one, in any order.
    """
    found: list[Finding] = []
    placed = [s for s in slices if not set(GEOMETRY) & set(s.unusable)]
    if not placed:
        found.append(finding("no-position", unusable_elements(slices, GEOMETRY)))
        return Stack((), np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]), tuple(found))
    alike = _largest_group(placed, _plane)
    if len(alike) < len(placed):
        said = f"{len(placed) - len(alike)} of {len(placed)} slices have another size, spacing or direction"
        found.append(finding("slices-left-out", said))
    found += _without_place(slices, alike)
    orientation = alike[0].orientation
    assert orientation is not None
    normal = np.cross(orientation[0], orientation[1])
    normal /= np.linalg.norm(normal)
    ordered, twins = _one_a_place(alike, normal, found)
    if len(ordered) < 2:
        found.append(_one_place(alike))
        return Stack(tuple(ordered), normal, normal, tuple(found))
    positions = np.stack([_position(s) for s in ordered])
    step = _step(positions, normal, ordered[0], found)
    _check_numbers(ordered, found)
    return Stack(tuple(ordered), normal, step, tuple(found), tuple(twins))


def _without_place(slices: Sequence[Slice], alike: Sequence[Slice]) -> list[Finding]:
    """Slices that do not say where they lie: of the stack's size they are missing from it, others are no part of it."""
    lost = [s for s in slices if set(GEOMETRY) & set(s.unusable)]
    missing = [s for s in lost if s.shape == alike[0].shape]
    found = []
    if missing:
        found.append(finding("no-position", unusable_elements(missing, GEOMETRY, len(slices))))
    if len(missing) < len(lost):
        said = f"{len(lost) - len(missing)} of {len(slices)} slices have no position and another size"
        found.append(finding("slices-left-out", said))
    return found


def _one_place(slices: Sequence[Slice]) -> Finding:
    """Why slices make no stack: there is one, or the headers put several into one place."""
    first = slices[0]
    if len({(s.frame, s.instance, s.header.get("SOPInstanceUID")) for s in slices}) < 2:
        return finding("too-few-slices", "one slice")
    position = element("ImagePositionPatient")
    if all(np.array_equal(_position(s), _position(first)) for s in slices):
        said = f"{position} is the same in all {len(slices)} slices"
    else:
        said = f"{position} changes only within the planes that {element('ImageOrientationPatient')} states"
    return finding("no-position", said)


def _position(item: Slice) -> NDArray[np.float64]:
    assert item.position is not None
    return item.position


def _plane(item: Slice) -> Hashable:
    assert item.orientation is not None and item.spacing_mm is not None
    return (item.shape, tuple(np.round(item.orientation, 3).ravel() + 0.0), tuple(np.round(item.spacing_mm, 4)))


def _largest_group(slices: Sequence[Slice], key: Callable[[Slice], Hashable]) -> list[Slice]:
    groups: dict[Hashable, list[Slice]] = defaultdict(list)
    for item in slices:
        groups[key(item)].append(item)
    return max(groups.values(), key=len)


def _one_a_place(
    slices: list[Slice], normal: NDArray[np.float64], found: list[Finding]
) -> tuple[list[Slice], list[tuple[Slice, Slice]]]:
    """Sort along the normal; of several slices at one place keep one."""
    places = _places(slices, normal)
    if len(places) < len(slices):
        repeats = len(slices) - len(places)
        # several acquisitions of the same region (phases, repeats) in one series: each is a scan of its own
        for name in ("AcquisitionNumber", "TemporalPositionIdentifier"):
            part = _largest_group(slices, lambda s, name=name: whole(s.header.get(name)))  # type: ignore[misc]
            within = _places(part, normal)
            if len(part) < len(slices) and len(within) == len(part) >= len(places) / 2:
                said = f"{repeats} places hold several acquisitions; the one with most slices is taken ({len(part)})"
                found.append(finding("series-chosen", said))
                return [place[0] for place in within], []
    twins = [(place[0], other) for place in places for other in place[1:]]
    return [place[0] for place in places], twins


def _places(slices: Sequence[Slice], normal: NDArray[np.float64]) -> list[list[Slice]]:
    """Slices grouped by place, in order."""
    heights = np.array([_position(s) @ normal for s in slices])
    order = np.lexsort((np.arange(len(slices)), heights))
    places: list[list[Slice]] = []
    last = -np.inf
    for index in order:
        if heights[index] - last > SAME_PLACE_MM:
            places.append([])
            last = heights[index]
        places[-1].append(slices[index])
    return places


def _step(
    positions: NDArray[np.float64], normal: NDArray[np.float64], first: Slice, found: list[Finding]
) -> NDArray[np.float64]:
    """The vector from slice to slice, after checking that one vector fits them all."""
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    uneven = np.abs(gaps - usual)
    if (uneven > max(REGULAR * usual, 0.02)).any():
        found.append(_uneven(gaps, usual))
    sideways = positions - positions[0] - np.outer(np.arange(len(positions)), step)
    sideways -= np.outer(sideways @ normal, normal)
    assert first.spacing_mm is not None
    off = float(np.linalg.norm(sideways, axis=1).max())
    if off > max(min(first.spacing_mm), 0.5):
        found.append(finding("shifted-slices", f"slices up to {off:.1f} mm beside a straight line"))
    slant = float(np.degrees(np.arctan2(np.linalg.norm(step - (step @ normal) * normal), step @ normal)))
    said = np.asarray(first.header.get("GantryDetectorTilt") or 0.0, dtype=np.float64).ravel()
    if slant > TILT_DEGREES:
        found.append(finding("gantry-tilt", f"slices stacked at {slant:.1f} degrees to their normal"))
    elif said.size and abs(said[0]) > TILT_DEGREES:
        words = f"the header names a tilt of {said[0]:.1f} degrees, but the slices are stacked straight"
        found.append(finding("gantry-tilt", words, "note"))
    return step


def _uneven(gaps: NDArray[np.float64], usual: float) -> Finding:
    ratio = gaps / usual
    times = np.rint(ratio)
    if ((np.abs(ratio - times) <= UNEVEN) & (times >= 1)).all() and (times > 1).any():
        missing = int((times - 1).sum())
        where = ", ".join(str(at + 1) for at in np.flatnonzero(times > 1)[:5])
        said = f"{missing} slice(s) missing, after slice {where} of {len(gaps) + 1} counted from one end"
        return finding("missing-slices", said)
    said = f"distances from {gaps.min():.2f} to {gaps.max():.2f} mm, most often {usual:.2f} mm"
    return finding("mixed-spacing", said, "warning" if np.abs(ratio - 1).max() <= UNEVEN else "error")


def _check_numbers(ordered: Sequence[Slice], found: list[Finding]) -> None:
    numbers = [item.instance for item in ordered]
    if any(number is None for number in numbers):
        return
    values = np.asarray(numbers, dtype=np.int64)
    steps = np.abs(np.diff(values))
    if (steps == 0).any() or len(np.unique(steps)) == 1:
        return
    if (np.diff(values) > 0).all() or (np.diff(values) < 0).all():
        missing = int((steps - steps.min()).sum() // max(1, int(steps.min())))
        found.append(
            finding("instance-numbers", f"{missing} number(s) missing between {values.min()} and {values.max()}")
        )
    else:
        found.append(finding("instance-numbers", "they do not follow the slices' order; positions are used"))
