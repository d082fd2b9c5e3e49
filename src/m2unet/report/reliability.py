"""The model's reliability diagram with one scan's interval in it, as coordinates for a drawing of the page."""

from __future__ import annotations

from dataclasses import dataclass

from m2unet.report.result import SeverityPart

SIDE = 200.0
"""Of the square, in units of the drawing."""

_BIGGEST = 9.0


@dataclass(frozen=True)
class Point:
    """A bin: its place, its radius (the area tells how many scans), and the figures in words."""

    x: float
    y: float
    radius: float
    text: str


@dataclass(frozen=True)
class ReliabilityPlot:
    """What the page draws; probabilities run to the right, shares of severe scans up.

    Attributes:
        points: one for each bin that holds scans.
        scans: how many they hold together.
        left, width: of the band of the scan's interval.
        at: of the line at the scan's probability.
        threshold: of the line at the operating point, None if it lies outside.
        text: everything in words.
    """

    points: tuple[Point, ...]
    scans: int
    left: float
    width: float
    at: float
    threshold: float | None
    text: str


def reliability_plot(severity: SeverityPart) -> ReliabilityPlot | None:
    """The drawing of a severity; None where it or the model's reliability is unknown."""
    if severity.probability is None or not severity.reliability:
        return None
    held = [part for part in severity.reliability if part.count]
    most = max(part.count for part in held)
    points = tuple(
        Point(
            round(SIDE * (part.mean_probability or 0.0), 1),
            round(SIDE * (1 - (part.share_severe or 0.0)), 1),
            round(_BIGGEST * (part.count / most) ** 0.5, 1),
            f"{part.count} scans said {part.mean_probability:.2f}, {100 * (part.share_severe or 0):.0f} % severe",
        )
        for part in held
    )
    low, high = severity.interval or (severity.probability, severity.probability)
    scans = sum(part.count for part in held)
    text = f"Reliability on {scans} validation scans: " + "; ".join(point.text for point in points)
    text += f". This scan: {severity.probability:.2f}, interval {low:.2f} to {high:.2f}."
    threshold = severity.threshold
    return ReliabilityPlot(
        points=points,
        scans=scans,
        left=round(SIDE * low, 1),
        width=round(max(SIDE * (high - low), 1.0), 1),
        at=round(SIDE * severity.probability, 1),
        threshold=None if threshold is None or not 0 <= threshold <= 1 else round(SIDE * threshold, 1),
        text=text,
    )
