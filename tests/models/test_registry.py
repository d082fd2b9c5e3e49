"""The registry and what every network of it must do."""

from __future__ import annotations

import pytest
import torch

from m2unet.config import ModelConfig
from m2unet.errors import ModelError
from m2unet.models.chest_unet import height_channel
from m2unet.models.norm import BatchNorm
from m2unet.models.registry import MODELS, build_model, model_names
from tests.models.samples import PATCH, make_batch, small_config, small_model, warm

NAMES = ["m2unet", "cls_only", "seg_only", "unet", "unetpp", "chest_unet", "gated_mil", "resnet50_max"]
SOME = torch.tensor([True, False])


def test_names() -> None:
    assert model_names() == NAMES
    assert all(entry.summary for entry in MODELS.values())


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ModelError, match=r"vnet.*m2unet, cls_only, seg_only, unet, unetpp, chest_unet, gated_mil, resnet50_max"
    ):
        build_model(ModelConfig(name="vnet"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("m2unet", 4_015_241),
        ("cls_only", 3_164_610),
        ("seg_only", 3_768_071),
        ("unet", 34_526_279),
        # torchvision's ResNet-50: 25,557,032, less two of three input channels and 998 of 1,000 classes
        ("resnet50_max", 25_557_032 - 2 * 64 * 49 - 998 * 2049),
    ],
)
def test_parameters_at_full_size(name: str, parameters: int) -> None:
    with torch.device("meta") if name != "resnet50_max" else torch.device("cpu"):
        model = build_model(ModelConfig(name=name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_unetpp_has_the_papers_size() -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(name="unetpp"))
    assert sum(p.numel() for p in model.parameters()) * 4 / 2**20 == pytest.approx(34.97, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", [False, True])
def test_every_network_trains_on_padded_bags(name: str, position: bool) -> None:
    model = small_model(name, position=position).train()
    batch = make_batch([2, 3], position=True)
    output = model(batch, SOME)
    parts = []
    if "severity" in model.tasks:
        assert output.severity.shape == (2, 2) and output.embedding.shape[0] == 2
        parts.append(output.severity.square().sum())
    else:
        assert output.severity is None
    if "lobes" in model.tasks:
        assert output.lobes.shape == (2, 7, PATCH, PATCH)
        parts.append(output.lobes.square().mean())
    else:
        assert output.lobes is None
    torch.stack(parts).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(name: str, training: bool) -> None:
    outputs = []
    for length in (3, 5):
        model = small_model(name).train(training)
        outputs.append(model(make_batch([2, 3], length=length), SOME))
    for part in ("severity", "lobes", "embedding"):
        plain, padded = (getattr(output, part) for output in outputs)
        assert (plain is None) == (padded is None)
        if plain is not None:
            torch.testing.assert_close(plain, padded, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_is_exact(name: str) -> None:
    found = []
    for checkpointing in (False, True):
        model = small_model(name).train()
        model.checkpointing = checkpointing
        output = model(make_batch([2, 3]), SOME)
        parts = [part.square().mean() for part in (output.severity, output.lobes) if part is not None]
        torch.stack(parts).sum().backward()
        found.append(([p.detach() for p in parts], [p.grad for p in model.parameters()], model.state_dict()))
    (plain, gradients, state), (parts, other_gradients, other_state) = found
    assert all(torch.equal(one, two) for one, two in zip(plain, parts, strict=True))
    for one, two in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)
    assert all(torch.equal(state[key], other_state[key]) for key in state)


@pytest.mark.parametrize("name", NAMES)
def test_one_patch_trains(name: str) -> None:
    model = small_model(name).train()
    output = model(make_batch([1]), torch.tensor([True]))
    (model.anchor() + sum(p.sum() for p in (output.severity, output.lobes) if p is not None)).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_or_segments_give_the_forward_pass(name: str) -> None:
    model = warm(small_model(name))
    batch = make_batch([2, 3])
    images = batch.inputs(position=False)
    output = model(batch, torch.tensor([True, True]))
    if "lobes" in model.tasks:
        if name == "chest_unet":
            images = height_channel(images, torch.full((len(images),), torch.nan))
        torch.testing.assert_close(model.segment(images), output.lobes)
    else:
        with pytest.raises(ModelError, match="no lobes"):
            model.segment(images)
    if "severity" in model.tasks:
        embedded = model.embed(images)
        alone = model.classify(embedded[:2].unsqueeze(0))
        torch.testing.assert_close(alone.severity[0], output.severity[0])
    else:
        with pytest.raises(ModelError, match="no severity"):
            model.embed(images)
        assert model(batch).lobes is None


@pytest.mark.parametrize("name", NAMES)
def test_only_our_normalisation_inside(name: str) -> None:
    layers = [m for m in small_model(name).modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert layers and all(type(layer) is BatchNorm for layer in layers)


@pytest.mark.parametrize("name", ["unet", "unetpp", "gated_mil"])
def test_sizes_that_do_not_fit_are_refused(name: str) -> None:
    model = small_model(name)
    call = model.segment if "lobes" in model.tasks else model.embed
    with pytest.raises(ModelError, match="multiples of 16"):
        call(torch.zeros(1, 1, 24, 32))


def test_building_is_reproducible() -> None:
    one, two, other = small_model(seed=3), small_model(seed=3), small_model(seed=4)
    state = one.state_dict()
    assert all(torch.equal(state[key], value) for key, value in two.state_dict().items())
    assert any(not torch.equal(state[key], value) for key, value in other.state_dict().items())
    assert one.config == small_config()
