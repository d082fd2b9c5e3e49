"""Evidence: complete, placed on the winners, and the winners are those of the decision itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from m2unet.errors import ModelError
from m2unet.models.batch import Batch
from m2unet.models.evidence import integrated_gradients, margin_of
from m2unet.models.m2unet import M2UNet
from tests.models.samples import make_batch, small_model, warm

METHODS = ("m2unet", "cls_only", "gated_mil", "resnet50_max")
VARIANTS = ({"pooling_norm": "batch"}, {"pooling_norm": "bias"}, {"pooling_norm": "none", "similarity": "dot"})


def only(batch: Batch, patches: Tensor) -> Batch:
    """The bag with these patches alone."""
    return replace(batch, patches=batch.patches[:, patches], mask=batch.mask[:, patches], lobes=None)


@pytest.mark.parametrize("changes", [*VARIANTS, {"activation": True}])
def test_the_logit_from_the_winners_alone_is_the_models(changes: dict[str, object]) -> None:
    """Image level: every patch that won nothing is thrown away. Position level: every position that won nothing."""
    model, batch = warm(small_model(**changes)), make_batch([9], seed=3)
    assert isinstance(model, M2UNet)
    with torch.no_grad():
        whole = model(batch)
        assert whole.severity is not None and whole.image_winners is not None
        chosen = whole.image_winners[0].unique()
        assert len(chosen) < 9
        few = model(only(batch, chosen))
        torch.testing.assert_close(few.severity, whole.severity, rtol=0, atol=1e-6)
        deepest = model.encode(batch.inputs(position=False)[chosen])[-1].flatten(2).transpose(1, 2)
        won = whole.position_winners[0, chosen]
        embeddings = []
        for positions, winners in zip(deepest, won, strict=True):
            embeddings.append(model.embedding_mil(positions[winners.unique()].unsqueeze(0)).values[0])
        rebuilt = model.classify(torch.stack(embeddings).unsqueeze(0))
    torch.testing.assert_close(rebuilt.severity, whole.severity, rtol=0, atol=1e-6)
    if changes == VARIANTS[0]:  # and the other way: without a patch that won, the answer is another
        rest = torch.tensor([k for k in range(9) if k != int(whole.image_winners[0].mode().values)])
        with torch.no_grad():
            assert not torch.allclose(model(only(batch, rest)).severity, whole.severity, atol=1e-6)


@pytest.mark.parametrize("name", ["m2unet", "gated_mil", "resnet50_max"])
def test_the_finer_map_is_the_gradient_of_the_whole_network(name: str) -> None:
    """Recomputed in one go: the log-odds of the whole bag, differentiated at the early map of all patches."""
    model, batch = warm(small_model(name)), make_batch([20], seed=4)
    found = model.evidence(batch)
    images = batch.inputs(position=False)
    if name == "resnet50_max":
        net = model.network
        early = net.layer1(net.maxpool(net.act(net.bn1(net.conv1(images))))).detach().requires_grad_(True)
        embeddings = net.avgpool(net.layer4(net.layer3(net.layer2(early)))).flatten(1)
    else:
        early = model.encoder(images)[2].detach().requires_grad_(True)
        deepest = early
        for block in model.encoder.blocks[3:]:
            deepest = block(deepest)
        flat = deepest.flatten(2)
        embeddings = model.embedding_mil(flat.transpose(1, 2)).values if name == "m2unet" else flat.mean(2)
    severity = model.classify(embeddings.unsqueeze(0)).severity
    (slope,) = torch.autograd.grad(severity[0, 1] - severity[0, 0], early)
    looked = slope.abs().flatten(1).sum(1) > 0
    mean = early[looked].mean(dim=(0, 2, 3), keepdim=True)
    expected = (slope * (early - mean)).sum(1)
    assert found.fine.shape == expected.shape and 0 < int(looked.sum()) <= 20
    torch.testing.assert_close(found.fine[looked], expected[looked].detach(), atol=1e-6, rtol=1e-4)
    assert not found.fine[~looked].any()


@pytest.mark.parametrize("name", METHODS)
def test_the_parts_add_up_to_the_models_log_odds(name: str) -> None:
    model, batch = warm(small_model(name, position=True)), make_batch([6], seed=1, position=True)
    found = model.evidence(batch)
    with torch.no_grad():
        severity = model(batch).severity
    assert severity is not None
    torch.testing.assert_close(found.output.severity, severity, rtol=0, atol=1e-6)
    assert found.margin == pytest.approx(float(severity[0, 1] - severity[0, 0]), abs=1e-6)
    assert found.base + float(found.positions.sum()) == pytest.approx(found.margin, abs=1e-4)
    assert found.positions.shape[0] == 6 and found.positions.shape[1] == found.positions.shape[2]
    assert float(found.positions.abs().sum()) > 0 and torch.isfinite(found.positions).all()


def test_only_winners_have_a_part() -> None:
    model, batch = warm(small_model()), make_batch([9], seed=3)
    found = model.evidence(batch)
    output = model(batch)
    assert output.image_winners is not None and output.position_winners is not None
    winners = set(output.image_winners[0].tolist())
    parts = found.positions.flatten(1)
    for patch in range(9):
        held = set(torch.nonzero(parts[patch]).flatten().tolist())
        allowed = set(output.position_winners[0, patch].tolist()) if patch in winners else set()
        assert held <= allowed


def test_maximum_over_patches_has_one_winner() -> None:
    model, batch = warm(small_model("resnet50_max")), make_batch([5], seed=2)
    found = model.evidence(batch)
    assert found.output.image_winners is not None
    held = found.positions.flatten(1).abs().sum(1) > 0
    assert held.nonzero().flatten().tolist() == found.output.image_winners[0].tolist()


def test_attention_shares_out_by_weight() -> None:
    """Two equal patches have parts in the ratio of their weights, which are then equal."""
    model, batch = warm(small_model("gated_mil")), make_batch([4], seed=2)
    batch.patches[0, 1] = batch.patches[0, 0]
    found = model.evidence(batch)
    torch.testing.assert_close(found.positions[0], found.positions[1])
    assert not torch.allclose(found.positions[0], found.positions[2])


def test_integrated_gradients_of_functions_done_by_hand() -> None:
    # m = x^2 + 3 y from (0, 0) to (2, 1): the parts are 4 and 3.
    parts, first = integrated_gradients(
        lambda v: v[:, 0] ** 2 + 3 * v[:, 1], torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.0])
    )
    torch.testing.assert_close(parts, torch.tensor([4.0, 3.0]))
    assert float(first) == 0
    # m = x y from (0, 0) to (2, 3): symmetric, 3 and 3. A gradient at the end would give 6 and 6, twice too much.
    parts, _ = integrated_gradients(lambda v: v[:, 0] * v[:, 1], torch.zeros(2), torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(parts, torch.tensor([3.0, 3.0]))
    # A kink: relu(x - 1) from 0 to 2 is 1 in all.
    parts, _ = integrated_gradients(lambda v: (v[:, 0] - 1).relu(), torch.zeros(1), torch.tensor([2.0]), steps=7)
    torch.testing.assert_close(parts, torch.tensor([1.0]))


def test_what_has_no_evidence_says_so() -> None:
    with pytest.raises(ModelError, match="no severity"):
        small_model("seg_only").eval().evidence(make_batch([2]))
    with pytest.raises(ModelError, match="no severity"):
        small_model("unet", width=4).eval().evidence(make_batch([2]))
    for name in METHODS:
        with pytest.raises(ValueError, match="one bag without padding"):
            warm(small_model(name)).evidence(make_batch([2, 1]))
    with pytest.raises(ValueError, match="one bag at a time"):
        margin_of(warm(small_model())(make_batch([2, 2])))
