"""Two published chest CT scores, computed from opacified shares.

CT severity score (Yang R. et al. 2020, *Radiology: Cardiothoracic Imaging* 2(2):e200047): 20 regions, 0 for none, 1
below 50 %, 2 from 50 % on; sum 0-40; severe above 19.5. Lobar CT score (Pan F. et al. 2020, *Radiology* 295:715-721):
five lobes scored 0 none, 1 below 5 %, 2 up to 25 %, 3 below 50 %, 4 up to 75 %, 5 above; sum 0-25. Both were made for
the eye; here "none" means less than a share that measuring noise can reach.

A part that is absent has no score. The sum is then None, and the least and most it could be are given instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

SEVERE_ABOVE = 19.5
"""Optimal threshold of Yang et al. 2020."""

INVOLVED_FROM_PERCENT = 1.0
"""A part counts as involved from this share on; below it is what noise and vessels leave in a healthy lung."""


@dataclass(frozen=True)
class Score:
    """A sum of part scores.

    Attributes:
        name: which score.
        parts: by part, its score, or None where the part is absent.
        total: the sum; None when a part is absent.
        least, most: bounds of the sum; equal to ``total`` when every part is scored.
        highest: the highest possible sum.
        severe: whether the sum lies above Yang's threshold; None for another score, or when the bounds leave it open.
        reason: why ``total`` is None.
    """

    name: str
    parts: Mapping[str, int | None]
    total: int | None
    least: int
    most: int
    highest: int
    severe: bool | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)


def yang_part(percent: float, involved_from: float = INVOLVED_FROM_PERCENT) -> int:
    """Score of one of the twenty regions from its opacified share in percent."""
    if percent < involved_from or percent == 0:
        return 0
    return 1 if percent < 50 else 2


def pan_part(percent: float, involved_from: float = INVOLVED_FROM_PERCENT) -> int:
    """Score of one lobe from its opacified share in percent."""
    if percent < involved_from or percent == 0:
        return 0
    if percent < 5:
        return 1
    if percent <= 25:
        return 2
    if percent < 50:
        return 3
    return 4 if percent <= 75 else 5


def yang_score(
    percents: Mapping[str, float | None],
    *,
    involved_from: float = INVOLVED_FROM_PERCENT,
    severe_above: float = SEVERE_ABOVE,
) -> Score:
    """CT severity score, 0-40.

    Args:
        percents: by region, its opacified share in percent, or None where it is absent.
        involved_from: share from which a region counts as involved.
        severe_above: threshold on the sum.
    """
    score = _sum("ct-severity-score", percents, lambda percent: yang_part(percent, involved_from), 2)
    severe = True if score.least > severe_above else False if score.most <= severe_above else None
    return Score(**{**score.__dict__, "severe": severe})


def pan_score(percents: Mapping[str, float | None], *, involved_from: float = INVOLVED_FROM_PERCENT) -> Score:
    """Lobar CT score, 0-25.

    Args:
        percents: by lobe, its opacified share in percent, or None where it is absent.
        involved_from: share from which a lobe counts as involved.
    """
    return _sum("lobar-ct-score", percents, lambda percent: pan_part(percent, involved_from), 5)


def _sum(name: str, percents: Mapping[str, float | None], part: Callable[[float], int], highest: int) -> Score:
    parts = {key: None if percent is None else part(percent) for key, percent in percents.items()}
    known = sum(score for score in parts.values() if score is not None)
    absent = [key for key, score in parts.items() if score is None]
    return Score(
        name=name,
        parts=parts,
        total=None if absent else known,
        least=known,
        most=known + highest * len(absent),
        highest=highest * len(parts),
        reason=f"no score for {', '.join(absent)}" if absent else None,
    )
