"""The CT severity score as a rule: severe above a threshold of the score 0-40 (Yang et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m2unet.errors import M2UNetError, RunError
from m2unet.evaluation.classification import choose_threshold
from m2unet.handcrafted.features import Measured
from m2unet.quantify.regions import REGIONS

HIGHEST = 2 * len(REGIONS)


@dataclass(frozen=True)
class ScoreRule:
    """A scan is severe above the threshold.

    Attributes:
        threshold: on the score, strictly between 0 and 40.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not 0 < self.threshold < HIGHEST:
            raise M2UNetError("A threshold must lie inside the score", found=self.threshold, expected=f"0 to {HIGHEST}")

    def probability(self, measured: Measured) -> float:
        """The score on a scale of 0 to 1 with the threshold at one half, so that it takes part in every figure.

        It rises with the score, straight on both sides of the threshold; it is not calibrated.
        """
        score = full_score(measured)
        if score <= self.threshold:
            return 0.5 * score / self.threshold * (1 - 1e-9)  # at the threshold itself: not above it
        return 0.5 + 0.5 * (score - self.threshold) / (HIGHEST - self.threshold)


def full_score(measured: Measured) -> float:
    """The score 0-40; regions of an absent lobe count as the mean of the others.

    Raises:
        M2UNetError: no region could be scored.
    """
    if not measured.scored:
        raise M2UNetError("No region of the lungs could be scored", mend="check the lobe mask")
    return measured.score * len(REGIONS) / measured.scored


def chosen_rule(severity: Sequence[int], measured: Sequence[Measured]) -> ScoreRule:
    """The rule with the best Youden index on these scans, which should be validation scans.

    Raises:
        RunError: only one class, or no threshold separates the classes.
    """
    shares = [full_score(m) / HIGHEST for m in measured]
    best = choose_threshold(severity, shares) if shares else None
    if best is None:
        raise RunError(
            "A threshold is chosen on validation scans of both classes, whose scores separate them",
            found=f"{len(shares)} scans, severities {sorted(set(severity))}",
            mend="hold out more patients with --validation, or keep handcrafted.threshold=19.5",
        )
    return ScoreRule(min(max(HIGHEST * best, 0.5), HIGHEST - 0.5))
