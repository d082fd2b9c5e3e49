"""What an encoder saw of a bag, the same for every network of severity, however it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from m2unet.inference.engine import accelerate
from m2unet.models.base import bag_signature
from tests.models.samples import make_batch, small_model, warm


@torch.inference_mode()
@pytest.mark.parametrize("name", ["m2unet", "cls_only", "gated_mil", "resnet50_max"])
def test_means_and_spreads_of_real_patches(name: str) -> None:
    model = warm(small_model(name))
    batch = make_batch([3, 5])
    found = model(batch).signature
    maps = model.encode(batch.inputs(position=False))  # type: ignore[operator]
    per_patch = np.concatenate([each.numpy().mean(axis=(2, 3)) for each in maps], axis=1)
    expected = [np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in (per_patch[:3], per_patch[3:])]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert model.train()(batch).signature is None


@pytest.mark.parametrize("name", ["m2unet", "gated_mil", "resnet50_max"])
def test_an_explained_bag_has_the_same_signature(name: str) -> None:
    model, batch = warm(small_model(name)), make_batch([4])
    with torch.no_grad():
        expected = model(batch).signature
    found = model.evidence(batch).output.signature
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_an_engine_sees_the_same() -> None:
    model, batch = warm(small_model()), make_batch([4, 2])
    expected = model(batch).signature
    exact, _ = accelerate(warm(small_model()), "reference", torch.device("cpu"))
    torch.testing.assert_close(exact(batch).signature, expected, rtol=1e-4, atol=1e-5)
    fast, _ = accelerate(warm(small_model()), "torch", torch.device("cpu"))
    assert (fast(batch).signature - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_single_patch_has_no_spread() -> None:
    maps, mask = [torch.rand(1, 3, 4, 4)], torch.tensor([[True, False]])
    found = bag_signature(maps, mask)
    torch.testing.assert_close(found[0, :3], maps[0].mean(dim=(2, 3))[0])
    assert found.shape == (1, 6) and (found[0, 3:] == 0).all()
