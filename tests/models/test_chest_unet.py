"""The whole-chest network: its picture of fissures, who learns from what, and beginning with other weights."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import uniform_filter

from m2unet.config import load_config
from m2unet.errors import ConfigError
from m2unet.models.chest_unet import ChestUNet, height_channel
from m2unet.models.fissures import CONTRAST, NEAR_PIXELS, FissureFinder, local_contrast, lung_channel

SMALL = load_config("synthetic", ["model.width=4"]).model


def slices(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1 + 2 * SMALL.context, 32, 64, generator=generator)
    return height_channel(images, torch.full((count,), torch.nan))


def test_the_lung_channel_spans_minus_1000_to_minus_570_hu() -> None:
    hu = torch.tensor([-1100.0, -1004.0, -787.0, -570.0, 40.0])
    scaled = ((hu + 1200) / 1400)[None, None, None]
    assert lung_channel(scaled)[0, 0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-3)


def test_contrast_is_the_difference_from_the_lung_around() -> None:
    lung = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.3
    lung[..., :12] = 1.0  # soft tissue takes no part
    inside = ((lung > 0) & (lung < 1)).numpy().astype(float)[0, 0]
    values = lung.numpy()[0, 0] * inside
    mean, share = (uniform_filter(each, NEAR_PIXELS, mode="constant") for each in (values, inside))
    expected = ((values - mean / share.clip(1e-3)) * inside / CONTRAST).clip(-1, 1)
    torch.testing.assert_close(local_contrast(lung)[0, 0].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_the_lobes_loss_does_not_teach_the_fissures() -> None:
    torch.manual_seed(0)
    model = ChestUNet(SMALL).train()
    model.read(slices()).lobes.sum().backward()
    assert all(p.grad is None for p in model.fissures.parameters())
    assert model.down[0].first.conv.weight.grad is not None  # type: ignore[union-attr]
    model.read(slices()).fissures.sum().backward()
    assert all(p.grad is not None for p in model.fissures.parameters())


def test_a_line_can_be_learned_from_its_look() -> None:
    """Lines in noise, as faint as fissures: a few steps tell them from the rest."""
    torch.manual_seed(0)
    finder = FissureFinder(1, 24)
    optimiser = torch.optim.Adam(finder.parameters(), lr=1e-2)
    for _ in range(60):
        truth = torch.zeros(4, 1, 32, 32)
        for k, row in enumerate(torch.randint(4, 28, (4,)).tolist()):
            truth[k, :, row] = 1
        images = 0.2 + 0.03 * truth + 0.005 * torch.randn(4, 1, 32, 32)
        logits = finder(images)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(logits[truth > 0].detach().mean()) > float(logits[truth == 0].detach().mean()) + 3


def test_beginning_with_weights_of_fewer_channels_changes_no_answer() -> None:
    torch.manual_seed(0)
    first, second = ChestUNet(SMALL).eval(), ChestUNet(SMALL).eval()
    weight = "down.0.first.conv.weight"
    with torch.no_grad():
        first.state_dict()[weight][:, -4:] = 0  # deaf to the fissures' channel
    kept = {name: value for name, value in first.state_dict().items() if not name.startswith("fissures")}
    kept[weight] = kept[weight][:, :-4].clone()
    drawn = {name: value.clone() for name, value in second.fissures.state_dict().items()}
    second.begin_with(kept)
    torch.testing.assert_close(second.read(slices()).lobes, first.read(slices()).lobes)
    assert all(torch.equal(value, drawn[name]) for name, value in second.fissures.state_dict().items())


def test_weights_of_another_network_are_refused() -> None:
    model = ChestUNet(SMALL)
    with pytest.raises(ConfigError, match="another network"):
        model.begin_with({"encoder.weight": torch.zeros(3)})
    with pytest.raises(ConfigError, match="another network"):
        model.begin_with({"head.bias": torch.zeros(3)})
    with pytest.raises(ConfigError, match="another network"):
        model.begin_with({"height.0.weight": torch.zeros(64, 3)})
    more = torch.zeros(4, 99, 3, 3)
    with pytest.raises(ConfigError, match="more channels"):
        model.begin_with({"down.0.first.conv.weight": more})
