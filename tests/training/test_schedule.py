"""Learning rate and the order of bags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m2unet.config import TrainConfig
from m2unet.training.schedule import epoch_steps, make_optimiser, poly_lr, set_lr


def test_poly_decay_agrees_with_torch() -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=50, power=0.75)
    for iteration in range(50):
        assert poly_lr(0.01, iteration, 50, 0.75) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        reference.step()


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 5), st.integers(0, 20))
def test_every_bag_comes_once_before_any_comes_twice(count: int, bags: int, seed: int, epoch: int) -> None:
    steps = epoch_steps(count, bags, seed=seed, epoch=epoch)
    flat = [index for step in steps for index in step]
    assert all(len(step) == bags for step in steps)
    assert sorted(flat[:count]) == list(range(count))
    assert len(flat) - count < bags
    assert steps == epoch_steps(count, bags, seed=seed, epoch=epoch)


def test_epochs_differ() -> None:
    assert epoch_steps(40, 4, seed=0, epoch=0) != epoch_steps(40, 4, seed=0, epoch=1)


def test_optimisers_carry_the_configuration() -> None:
    model = torch.nn.Linear(2, 2)
    sgd = make_optimiser(model, TrainConfig())
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.01, 0.9, 1e-4)
    adamw = make_optimiser(model, TrainConfig(optimiser="adamw", lr=0.002))
    assert isinstance(adamw, torch.optim.AdamW)
    set_lr(adamw, 0.5)
    assert all(group["lr"] == 0.5 for group in adamw.param_groups)
