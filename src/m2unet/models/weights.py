"""A trained network on disk: ``weights.safetensors`` and its card ``model.json``. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from m2unet import __version__
from m2unet.config import Config, parse_config
from m2unet.errors import ConfigError, ModelError
from m2unet.files import atomic_path
from m2unet.models.base import SeverityModel
from m2unet.models.registry import build_model

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "model.json"
SCHEMA = "m2unet.model"
SCHEMA_VERSION = 1

_TRAIN_AGAIN = "copy the whole model folder again, or train the model again"


@dataclass(frozen=True)
class LoadedModel:
    """A network read from disk.

    Attributes:
        model: with its weights, on the CPU, in evaluation mode.
        config: the run that made it.
        card: everything ``model.json`` says.
    """

    model: SeverityModel
    config: Config
    card: dict[str, Any]


def save_model(
    model: SeverityModel, config: Config, folder: Path | str, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a network and its card; each file appears whole or not at all, the card last.

    Args:
        model: on any device; its own sizes must be those of ``config.model``.
        config: the whole run's configuration.
        folder: made if absent; a model there is replaced.
        extra: further entries of the card, JSON values.

    Returns:
        The folder.

    Raises:
        ModelError: the network is not the one ``config`` describes, or ``extra`` uses a name of the card's own.
    """
    if model.config != config.model:
        raise ModelError("The network was built with other sizes", found=model.config, expected=config.model)
    weights = safetensors.torch.save({name: _plain(tensor) for name, tensor in model.state_dict().items()})
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "model": config.model.name,
        "m2unet_version": __version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "config": config.model_dump(mode="json"),
    }
    taken = sorted(set(card) & set(extra or {}))
    if taken:
        raise ModelError("Names of the model card itself cannot be used for extras", found=taken)
    card.update(extra or {})
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, weights)
    _write(folder / CARD_FILE, text.encode())
    return folder


def load_model(folder: Path | str) -> LoadedModel:
    """Read a network that :func:`save_model` wrote.

    Raises:
        ModelError: a file is missing or damaged, was made by a later version, or the two do not belong together.
    """
    folder = Path(folder)
    card = _read_card(folder / CARD_FILE)
    try:
        config = parse_config(card["config"])
    except ConfigError as error:
        raise ModelError(
            "The configuration in the model card is not one of this version",
            found=error.found,
            expected=f"a configuration of m2unet {__version__}; the model was made by {card['m2unet_version']}",
            mend="use the version that made the model, or train the model again",
        ) from None
    if card["model"] != config.model.name:
        raise ModelError(
            "The model card contradicts itself", found=card["model"], expected=config.model.name, mend=_TRAIN_AGAIN
        )
    tensors = _read_weights(folder / WEIGHTS_FILE, card["weights_sha256"])
    model = build_model(config.model)
    _check_fit(model, tensors)
    model.load_state_dict(tensors)
    return LoadedModel(model.eval(), config, card)


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a model folder, whatever network they are for.

    Attributes:
        tensors: by name.
        sha256: of their file.
    """

    tensors: dict[str, Tensor]
    sha256: str


def read_weights(folder: Path | str) -> StoredWeights:
    """Read a model's weights without building its network.

    Raises:
        ModelError: as :func:`load_model`.
    """
    card = _read_card(Path(folder) / CARD_FILE)
    return StoredWeights(_read_weights(Path(folder) / WEIGHTS_FILE, card["weights_sha256"]), card["weights_sha256"])


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The model has no readable {path.name}",
            found=f"{path}: {error.strerror}",
            expected=f"a folder with {WEIGHTS_FILE} and {CARD_FILE}",
            mend="give the folder of a trained model, or train one with `m2unet train`",
        ) from None


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(_read(path))
    except ValueError:
        raise ModelError(f"{CARD_FILE} is not valid JSON", found=path, mend=_TRAIN_AGAIN) from None
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise ModelError(f"{CARD_FILE} is not a model card", found=path, expected=f"schema {SCHEMA!r}")
    if card.get("schema_version") != SCHEMA_VERSION:
        raise ModelError(
            "The model card has another schema version",
            found=card.get("schema_version"),
            expected=SCHEMA_VERSION,
            mend="use the version of m2unet that made it",
        )
    kinds = {"model": str, "m2unet_version": str, "weights_sha256": str, "config": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(card.get(name), kind)]
    if wrong:
        raise ModelError(f"{CARD_FILE} lacks entries", found=path, expected=", ".join(wrong), mend=_TRAIN_AGAIN)
    return card


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{WEIGHTS_FILE} is not the file {CARD_FILE} was written with",
            found=f"sha256 {found}",
            expected=sha256,
            mend=_TRAIN_AGAIN,
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{WEIGHTS_FILE} cannot be read", found=error, mend=_TRAIN_AGAIN) from None


def _check_fit(model: SeverityModel, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected == found:
        return
    odd = [
        f"{name}: {found.get(name, 'absent')} instead of {expected.get(name, 'absent')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    shown = "; ".join(odd[:5]) + (f"; and {len(odd) - 5} more" if len(odd) > 5 else "")
    raise ModelError("The weights do not fit the network of the model card", found=shown, mend=_TRAIN_AGAIN)
