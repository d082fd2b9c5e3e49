"""A trained handcrafted method on disk: ``model.json`` (card) and ``parameters.json``. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m2unet import __version__
from m2unet.config import Config, parse_config
from m2unet.errors import ModelError
from m2unet.files import write_text
from m2unet.handcrafted.features import FEATURES, Measured, feature_matrix
from m2unet.handcrafted.forest import Forest, fit_forest
from m2unet.handcrafted.score_rule import ScoreRule, chosen_rule
from m2unet.inference.severity import SeverityEstimate

SCHEMA = "m2unet.handcrafted/1"
CARD_FILE, PARAMETERS_FILE = "model.json", "parameters.json"

Decider = Forest | ScoreRule


@dataclass(frozen=True)
class Examples:
    """Labelled, measured scans.

    Attributes:
        severity: ``[n]``, 1 severe.
        measured: ``[n]``.
    """

    severity: Sequence[int]
    measured: Sequence[Measured]


def fit_decider(config: Config, train: Examples, validation: Examples) -> Decider:
    """Train the method that ``config.model.name`` names.

    Raises:
        RunError: too few labels.
        ModelError: it names no handcrafted method.
    """
    settings = config.handcrafted
    if config.model.name == "tang":
        names = [feature.name for feature in FEATURES]
        values = feature_matrix(train.measured)
        return fit_forest(values, train.severity, names, trees=settings.trees, seed=config.seed)
    if config.model.name == "yang":
        if settings.threshold == "validation":
            return chosen_rule(validation.severity, validation.measured)
        return ScoreRule(settings.threshold)
    raise ModelError("There is no such handcrafted method", found=config.model.name, expected="tang or yang")


def decide(decider: Decider, measured: Measured) -> float:
    """Probability of severe disease of one scan (for the score rule: a scale with the threshold at one half)."""
    if isinstance(decider, ScoreRule):
        return decider.probability(measured)
    return float(decider.probability(feature_matrix([measured]))[0])


def estimate(decider: Decider, measured: Measured, seed: int = 0) -> SeverityEstimate:
    """The answer for one scan in the networks' form.

    The parts of a forest take the place of random bags, a score rule has a single answer; the features are the vector
    that is compared with those of training scans, if none is missing.
    """
    probability = decide(decider, measured)
    values = feature_matrix([measured])
    bags = (probability,) if isinstance(decider, ScoreRule) else tuple(decider.parts(values)[:, 0].tolist())
    signature = tuple(values[0].tolist()) if np.isfinite(values).all() else ()
    return SeverityEstimate(probability, float(np.std(bags)), bags, seed, signature=signature)


def save_decider(decider: Decider, config: Config, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write the parameters, then the card."""
    values = {"threshold": decider.threshold} if isinstance(decider, ScoreRule) else decider.to_dict()
    text = json.dumps(values, allow_nan=False) + "\n"
    card = {
        "schema": SCHEMA,
        "model": config.model.name,
        "m2unet_version": __version__,
        "weights_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "config": config.model_dump(mode="json"),
        **extra,
    }
    write_text(folder / PARAMETERS_FILE, text)
    write_text(folder / CARD_FILE, json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def is_handcrafted(folder: Path) -> bool:
    """Whether a model folder holds a handcrafted method's card."""
    try:
        return json.loads((folder / CARD_FILE).read_text(encoding="utf-8")).get("schema") == SCHEMA
    except (OSError, ValueError, AttributeError):
        return False


def load_decider(folder: Path) -> tuple[Decider, Config, dict[str, Any]]:
    """Read what :func:`save_decider` wrote: the method, its run's configuration, its card.

    Raises:
        ModelError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        text = (folder / PARAMETERS_FILE).read_text(encoding="utf-8")
        sha256, config = card["weights_sha256"], parse_config(card["config"])
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise ValueError(f"{PARAMETERS_FILE} is not the file the card was written with")
        values = json.loads(text)
        if config.model.name == "yang":
            return ScoreRule(float(values["threshold"])), config, card
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError("The model cannot be read", found=f"{folder}: {error}", mend="train it again") from None
    forest = Forest.from_dict(values)
    if forest.features != tuple(feature.name for feature in FEATURES):
        raise ModelError(
            "The forest was grown on other features",
            found=f"{len(forest.features)} features of version {card['m2unet_version']}",
            mend="train it again with this version",
        )
    return forest, config, card
