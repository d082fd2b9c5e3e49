"""Networks on disk: back as they were, and refused with a reason when damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from m2unet import __version__
from m2unet.config import Config
from m2unet.errors import ModelError, OutputError
from m2unet.models import weights
from m2unet.models.registry import model_names
from m2unet.models.weights import CARD_FILE, WEIGHTS_FILE, load_model, save_model
from tests.models.samples import make_batch, small_config, small_model, warm


def save(folder: Path, name: str = "m2unet", **extra: Any) -> Config:
    config = Config(seed=7, model=small_config(name))
    save_model(warm(small_model(name)), config, folder, extra)
    return config


def edit_card(folder: Path, **changes: Any) -> None:
    path = folder / CARD_FILE
    card = json.loads(path.read_text())
    card.update(changes)
    path.write_text(json.dumps({key: value for key, value in card.items() if value is not None}))


def replace_weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(content)
    edit_card(folder, weights_sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", model_names())
def test_round_trip(tmp_path: Path, name: str) -> None:
    config = save(tmp_path / "new" / "model", name)
    loaded = load_model(tmp_path / "new" / "model")
    assert loaded.config == config
    assert not loaded.model.training
    expected = warm(small_model(name))
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)
    batch = make_batch([2])
    one, two = expected(batch, torch.tensor([True])), loaded.model(batch, torch.tensor([True]))
    for part in ("severity", "lobes"):
        if getattr(one, part) is not None:
            assert torch.equal(getattr(one, part), getattr(two, part))


def test_card_says_what_it_is(tmp_path: Path) -> None:
    config = save(tmp_path, trained_on="phantoms")
    card = load_model(tmp_path).card
    assert card == json.loads((tmp_path / CARD_FILE).read_text())
    assert card["model"] == "m2unet"
    assert card["m2unet_version"] == __version__
    assert card["trained_on"] == "phantoms"
    assert card["parameters"] == sum(p.numel() for p in small_model().parameters())
    assert card["weights_sha256"] == hashlib.sha256((tmp_path / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert card["config"] == config.model_dump(mode="json")
    assert sorted(p.name for p in tmp_path.iterdir()) == [CARD_FILE, WEIGHTS_FILE]


def test_channels_last_and_bad_layouts_are_saved(tmp_path: Path) -> None:
    model = small_model().to(memory_format=torch.channels_last)
    save_model(model, Config(model=small_config()), tmp_path)
    loaded = load_model(tmp_path).model
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(_self: Path, _target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(weights.Path, "replace", fail)
    with pytest.raises(OutputError, match="disk full"):
        save_model(small_model(seed=9), Config(model=small_config()), tmp_path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_network_and_configuration_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="other sizes"):
        save_model(small_model(), Config(), tmp_path)


def test_extras_cannot_replace_the_cards_entries(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights_sha256"):
        save(tmp_path, weights_sha256="0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [CARD_FILE, WEIGHTS_FILE])
def test_missing_file(tmp_path: Path, name: str) -> None:
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"no readable {name}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not valid JSON"), ("[]", "not a model card"), ('{"schema": "x"}', "not a model card")]
)
def test_broken_card(tmp_path: Path, text: str, words: str) -> None:
    save(tmp_path)
    (tmp_path / CARD_FILE).write_text(text)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "another schema version.*99"),
        ({"config": None}, "lacks entries.*config"),
        ({"weights_sha256": "0" * 64}, "not the file"),
        ({"model": "unet"}, "contradicts itself"),
        ({"config": {"model": {"depth": 3}}}, "not one of this version.*depth"),
        ({"config": {"model": {"name": "vnet"}}, "model": "vnet"}, "no such network.*vnet"),
    ],
)
def test_card_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    save(tmp_path)
    edit_card(tmp_path, **changes)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


def test_truncated_weights(tmp_path: Path) -> None:
    save(tmp_path)
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[:-100])
    with pytest.raises(ModelError, match="not the file"):
        load_model(tmp_path)
    replace_weights(tmp_path, content[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    save(tmp_path)
    other = small_model("seg_only", width=5).state_dict()
    replace_weights(tmp_path, safetensors.torch.save({key: value.contiguous() for key, value in other.items()}))
    with pytest.raises(ModelError, match=r"classifier\.bias: absent instead of \(2,\).*and \d+ more"):
        load_model(tmp_path)
