"""``followup.html``: one patient over time on one self-contained page; and the same figures as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from m2unet.anatomy import LOBE_BY_ABBREVIATION
from m2unet.quantify.followup import Change, Comparison, Followup
from m2unet.quantify.lobes import GROUPS
from m2unet.report.html import environment, png_uri
from m2unet.report.result import NOTICE

COLUMNS = ("first", "second", "days", "verdict", "part", "figure", "before", "after", "change", "sigma", "low", "high")
VERDICTS = {
    "progress": "progress: more opacity",
    "stable": "stable: no change that can be proven",
    "regress": "regress: less opacity",
    None: "no verdict",
}


@dataclass(frozen=True)
class FollowupPictures:
    """PNGs to embed.

    Attributes:
        plot: the course.
        thumbnails: by scan, a coronal slice.
    """

    plot: bytes | None = None
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


def render_followup(
    patient: str,
    found: Followup,
    pictures: FollowupPictures,
    *,
    warnings: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
    version: str = "",
) -> str:
    """The page of one patient; it fetches nothing.

    Args:
        patient: pseudonym.
        found: the figures.
        pictures: to embed.
        warnings: shown at the top, such as that the model was trained on phantoms.
        failed: by scan, why it could not be measured.
        version: of this package.
    """
    comparisons = [*found.steps] if len(found.steps) == 1 else [found.overall, *found.steps]
    return (
        environment()
        .get_template("followup.html.j2")
        .render(
            patient=patient,
            found=found,
            comparisons=comparisons,
            lobes=LOBE_BY_ABBREVIATION,
            parts=tuple(GROUPS),
            verdicts=VERDICTS,
            plot=None if pictures.plot is None else png_uri(pictures.plot),
            thumbnails={name: png_uri(png) for name, png in pictures.thumbnails.items()},
            warnings=list(warnings),
            failed=dict(failed or {}),
            notice=NOTICE,
            version=version,
        )
    )


def followup_csv(found: Followup) -> str:
    """One row a comparison, part and figure; an empty cell where a value cannot be had."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    comparisons = [*found.steps] if len(found.steps) == 1 else [*found.steps, found.overall]
    for comparison in comparisons:
        for part, figure, change in _figures(comparison):
            row = {
                "first": comparison.first,
                "second": comparison.second,
                "days": comparison.days,
                "verdict": comparison.verdict,
                "part": part,
                "figure": figure,
                **{name: getattr(change, name) for name in ("before", "after", "change", "sigma", "low", "high")},
            }
            table.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _figures(comparison: Comparison) -> list[tuple[str, str, Change]]:
    found = [
        (name, figure, getattr(part, figure))
        for name, part in comparison.parts.items()
        for figure in ("volume_ml", "opacity_ml", "opacity_percent")
    ]
    found += [("lungs", name, change) for name, change in comparison.scores.items()]
    return [*found, ("lungs", "severity", comparison.severity)]


def _cell(value: object) -> object:
    if value is None:
        return ""
    return round(value, 4) if isinstance(value, float) else value
