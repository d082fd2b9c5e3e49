"""ResNet-50 + Max: the scan's answer is that of its most suspicious patch."""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import resnet50

from tests.models.samples import PATCH, make_batch, small_model


def test_maximum_over_real_patches() -> None:
    model = small_model("resnet50_max").eval()
    batch = make_batch([3, 2], length=4)
    output = model(batch)
    logits = output.instance_severity
    assert logits.shape == (2, 4, 2)
    assert not bool(logits[~batch.mask].any())
    for bag, count in enumerate([3, 2]):
        probabilities = logits[bag, :count].softmax(-1)[:, 1]
        torch.testing.assert_close(output.attention[bag, :count], probabilities)
        assert not bool(output.attention[bag, count:].any())
        winner = int(probabilities.argmax())
        assert output.image_winners[bag].tolist() == [winner]
        assert torch.equal(output.severity[bag], logits[bag, winner])


def test_padding_loses_even_where_all_patches_look_harmless() -> None:
    model = small_model("resnet50_max").eval()
    with torch.no_grad():
        model.network.fc.bias.copy_(torch.tensor([50.0, -50.0]))
    output = model(make_batch([2], length=5))
    assert int(output.image_winners) < 2
    assert float(output.severity.detach()[0, 1]) < 0


def test_each_patch_is_judged_as_monai_would() -> None:
    model = small_model("resnet50_max").eval()
    theirs = resnet50(
        spatial_dims=2,
        n_input_channels=1,
        num_classes=2,
        conv1_t_stride=2,
        bias_downsample=False,
        widen_factor=model.config.width / 64,
    ).eval()
    theirs.load_state_dict(model.network.state_dict())
    batch = make_batch([3])
    torch.testing.assert_close(model(batch).instance_severity[0], theirs(batch.patches[0]))


def test_any_size_of_patch() -> None:
    model = small_model("resnet50_max").eval()
    assert model.embed(torch.rand(2, 1, PATCH + 3, 50)).shape[0] == 2
