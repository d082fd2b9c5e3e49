"""Gated attention against a hand-worked example and torchmil."""

from __future__ import annotations

import math

import pytest
import torch

from m2unet.models.gated_mil import GatedAttention
from tests.models.samples import make_batch, small_model, warm


def test_hand_worked_example() -> None:
    # One hidden unit: V = (1, 0), U = (0, 1), w = 2. Instances (1, 0), (0, 3), (-1, 1).
    # Scores: 2 tanh(1) / 2, 0, -2 tanh(1) / (1 + exp(-1)).
    attention = GatedAttention(2, 1)
    with torch.no_grad():
        attention.content.weight.copy_(torch.tensor([[1.0, 0.0]]))
        attention.gate.weight.copy_(torch.tensor([[0.0, 1.0]]))
        attention.weight.weight.copy_(torch.tensor([[2.0]]))
    bag = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [-1.0, 1.0]]])
    powers = [math.exp(math.tanh(1)), 1.0, math.exp(-2 * math.tanh(1) / (1 + math.exp(-1)))]
    a = [power / sum(powers) for power in powers]
    pooled, weights = attention(bag)
    torch.testing.assert_close(weights, torch.tensor([a]))
    torch.testing.assert_close(pooled, torch.tensor([[a[0] - a[2], 3 * a[1] + a[2]]]))


def test_torchmil_with_the_same_weights() -> None:
    module = pytest.importorskip("torchmil.nn.attention")
    torch.manual_seed(0)
    ours = GatedAttention(6, 5)
    theirs = module.AttentionPool(in_dim=6, att_dim=5, gated=True)
    bags = torch.randn(3, 4, 6)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 0]]).bool()
    with torch.no_grad():
        theirs(bags)  # builds its lazy layers
        for name, layer in (("fc1", ours.content), ("fc_gated", ours.gate), ("fc2", ours.weight)):
            state = theirs.state_dict()
            for key in (k for k in state if k.startswith(f"{name}.")):
                state[key].copy_(layer.weight if key.endswith("weight") else torch.zeros_like(state[key]))
        expected, scores = theirs(bags, mask.float(), return_att=True)
    pooled, weights = ours(bags, mask)
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights, scores.masked_fill(~mask, -torch.inf).softmax(1))


def test_monai_with_the_same_weights_where_the_gate_stands_half_open() -> None:
    """MONAI's attention pooling has no gate: with U = 0 every gate is one half, and half of w is its last layer."""
    from monai.networks.nets.milmodel import MILModel

    torch.manual_seed(0)
    theirs = MILModel(num_classes=2, mil_mode="att", backbone=torch.nn.Identity(), backbone_num_features=6)
    ours = GatedAttention(6, 2048)
    with torch.no_grad():
        ours.content.weight.copy_(theirs.attention[0].weight)
        theirs.attention[0].bias.zero_()
        ours.gate.weight.zero_()
        ours.weight.weight.copy_(2 * theirs.attention[2].weight)
    bags = torch.randn(3, 4, 6)
    torch.testing.assert_close(theirs.myfc(ours(bags)[0]), theirs.calc_head(bags))


def test_attention_of_the_network() -> None:
    model = warm(small_model("gated_mil"))
    output = model(make_batch([3, 1]))
    assert output.attention.shape == (2, 3)
    torch.testing.assert_close(output.attention.sum(1), torch.ones(2))
    assert output.attention[1].tolist() == [1.0, 0.0, 0.0]


def test_empty_bag_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bags \[0\]"):
        GatedAttention(6)(torch.zeros(1, 2, 6), torch.zeros(1, 2, dtype=torch.bool))
