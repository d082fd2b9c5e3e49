"""Batch normalisation against torch's own, alone and shared by two processes."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from m2unet.models.batch import Batch
from m2unet.models.norm import BatchNorm, adopt_batch_norm, frozen_running_statistics, local_statistics, processes
from m2unet.models.pooling import GlobalContrastPooling
from tests.models.samples import make_batch, small_model

SHAPES = [(9, 3), (4, 3, 5, 6)]


def theirs(dimensions: int) -> nn.Module:
    return nn.BatchNorm1d(3) if dimensions == 2 else nn.BatchNorm2d(3)


def pair(dimensions: int) -> tuple[BatchNorm, nn.Module]:
    ours, other = BatchNorm(3), theirs(dimensions)
    with torch.no_grad():
        other.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))  # type: ignore[operator]
        other.bias.copy_(torch.tensor([0.5, 0.0, 3.0]))  # type: ignore[operator]
    ours.load_state_dict(other.state_dict())
    return ours, other


@pytest.mark.parametrize("shape", SHAPES)
def test_alone_it_is_torchs(shape: tuple[int, ...]) -> None:
    ours, other = pair(len(shape))
    for seed in range(3):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        assert torch.equal(ours(values), other(values))
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {
        k: v.tolist() for k, v in other.state_dict().items()
    }
    assert torch.equal(ours.eval()(values), other.eval()(values))


def test_frozen_statistics_change_nothing_but_themselves() -> None:
    norm = BatchNorm(3)
    values = torch.randn(4, 3, 5, 6)
    with frozen_running_statistics():
        frozen = norm(values)
    assert int(norm.num_batches_tracked) == 0  # type: ignore[arg-type]
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert torch.equal(norm(values), frozen)
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_update_bn_of_torch_finds_it() -> None:
    network = nn.Sequential(BatchNorm(3))
    batches = [torch.randn(8, 3) + shift for shift in (0.0, 2.0, 7.0)]
    network(torch.randn(5, 3) + 100)
    update_bn(batches, network)
    norm = network[0]
    assert isinstance(norm, BatchNorm)
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 3, 1, 1)])
def test_without_a_variance_the_running_statistics_stand_in(shape: tuple[int, ...]) -> None:
    norm, _ = pair(2)
    norm(torch.randn(20, 3))
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    values = torch.randn(shape, requires_grad=True)
    result = norm(values)
    result.sum().backward()
    assert torch.equal(result, norm.eval()(values))
    assert values.grad is not None and bool(torch.isfinite(values.grad).all())
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())


def test_bfloat16_is_normalised_in_float32() -> None:
    norm = BatchNorm(3)
    values = torch.randn(64, 3, 8, 8).bfloat16() + 30
    result = norm(values)
    assert result.dtype == torch.bfloat16
    expected = nn.BatchNorm2d(3)(values.float())
    torch.testing.assert_close(result.float(), expected, atol=0.02, rtol=0.01)
    torch.testing.assert_close(norm.running_mean, 0.1 * values.float().mean((0, 2, 3)), rtol=1e-5, atol=0)


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        BatchNorm(3)(torch.randn(4, 5))


def test_adopting_keeps_every_value() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)), BatchNorm(3))
    network(torch.randn(2, 1, 8, 8))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    adopt_batch_norm(network)
    adopted = network[1][0]  # type: ignore[index]
    assert type(adopted) is BatchNorm
    assert (adopted.eps, adopted.momentum) == (1e-3, 0.3)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


# Two processes. Rank 0 runs in the test's own process, rank 1 beside it; each case is given to both, split unequally.

SPLITS = {"unequal": (6, 3), "all on one": (9, 0), "one value each": (8, 1)}
TIMEOUT = timedelta(seconds=120)


def _values_and_weights(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    values, weights = (torch.randn((9, *shape[1:]), generator=generator, dtype=torch.float64) for _ in range(2))
    return values * 2 + 5, weights


def _norm_case(rank: int, shape: tuple[int, ...], split: tuple[int, int]) -> dict[str, Any]:
    norm = pair(len(shape))[0].double()
    values, weights = _values_and_weights(shape)
    mine = slice(0, split[0]) if rank == 0 else slice(split[0], None)
    part = values[mine].clone().requires_grad_()
    result = norm(part)
    (result * weights[mine]).sum().backward()
    with frozen_running_statistics():
        again = norm(part.detach())
    return {
        "result": result.detach(),
        "again": again,
        "gradient": part.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "state": norm.state_dict(),
    }


def _single_value(rank: int) -> dict[str, Any]:
    norm, _ = pair(2)
    values = torch.full((1 - rank, 3), 4.0, requires_grad=True)
    result = norm(values)
    result.sum().backward()
    return {"result": result.detach(), "gradient": values.grad, "count": norm.num_batches_tracked}


def _pooling_case(rank: int) -> dict[str, Any]:
    torch.manual_seed(0)
    pooling = GlobalContrastPooling(6, 4)
    generator = torch.Generator().manual_seed(8)
    bags = torch.randn(3, 5, 6, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    mine = slice(0, 1) if rank == 0 else slice(1, 3)
    part = bags[mine].clone().requires_grad_()
    pooled = pooling(part, mask[mine])
    pooled.values.square().sum().backward()
    return {"values": pooled.values.detach(), "gradient": part.grad, "concepts": pooling.concepts.grad}


def _network_inputs() -> tuple[Batch, Tensor]:
    batch = make_batch([3, 2], seed=4)
    return replace(batch, patches=batch.patches.double()), torch.tensor([True, False])


def _network_loss(output: Any) -> Tensor:
    loss: Tensor = output.severity.square().sum()
    return loss if output.lobes is None else loss + output.lobes.square().mean(dim=(1, 2, 3)).sum()


def _network_case(rank: int, *, lobes: bool) -> dict[str, Any]:
    """One bag a process; only process 0's has lobes, or none has."""
    model = small_model().double().train()
    model.checkpointing = True
    batch, lobes_for = _network_inputs()
    mine = slice(rank, rank + 1)
    part = replace(
        batch,
        patches=batch.patches[mine],
        mask=batch.mask[mine],
        severity=batch.severity[mine],
        has_lobes=batch.has_lobes[mine],
    )
    output = model(part, lobes_for[mine] if lobes else None)
    (_network_loss(output) + model.anchor()).backward()
    return {
        "severity": output.severity.detach(),
        "lobes": None if output.lobes is None else output.lobes.detach(),
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "state": model.state_dict(),
    }


def _everything(rank: int, rendezvous: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=TIMEOUT)
    try:
        found: dict[str, Any] = {
            f"{name} {len(shape)}": _norm_case(rank, shape, split) for name, split in SPLITS.items() for shape in SHAPES
        }
        found["single value"] = _single_value(rank)
        found["pooling"] = _pooling_case(rank)
        found["network"] = _network_case(rank, lobes=True)
        found["network without lobes"] = _network_case(rank, lobes=False)
        with local_statistics():
            found["processes"] = processes()
        return found
    finally:
        dist.destroy_process_group()


def _other_process(rendezvous: str, answer: str) -> None:
    torch.save(_everything(1, rendezvous), answer)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each of two processes found."""
    folder: Path = tmp_path_factory.mktemp("processes")
    rendezvous, answer = str(folder / "rendezvous"), folder / "answer.pt"
    other = multiprocessing.get_context("spawn").Process(target=_other_process, args=(rendezvous, str(answer)))
    other.start()
    threads = torch.get_num_threads()
    try:
        first = _everything(0, rendezvous)
        other.join(timeout=TIMEOUT.total_seconds())
        assert other.exitcode == 0
    finally:
        torch.set_num_threads(threads)
        if other.is_alive():
            other.kill()
    return first, torch.load(answer, weights_only=False)


Both = tuple[dict[str, Any], dict[str, Any]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SPLITS)
def test_two_processes_are_one(both: Both, name: str, shape: tuple[int, ...]) -> None:
    one, two = (found[f"{name} {len(shape)}"] for found in both)
    other = pair(len(shape))[1].double()
    values, weights = _values_and_weights(shape)
    values.requires_grad_()
    result = other(values)
    (result * weights).sum().backward()
    torch.testing.assert_close(torch.cat([one["result"], two["result"]]), result.detach())
    torch.testing.assert_close(torch.cat([one["gradient"], two["gradient"]]), values.grad)
    torch.testing.assert_close(one["weight"] + two["weight"], other.weight.grad)
    torch.testing.assert_close(one["bias"] + two["bias"], other.bias.grad)
    for found in (one, two):
        assert torch.equal(found["again"], found["result"])
        for key, tensor in other.state_dict().items():
            torch.testing.assert_close(found["state"][key], tensor)


def test_two_processes_with_a_single_value_between_them(both: Both) -> None:
    one, two = (found["single value"] for found in both)
    norm = pair(2)[0].eval()
    assert torch.equal(one["result"], norm(torch.full((1, 3), 4.0)).detach())
    torch.testing.assert_close(one["gradient"], (norm.weight / (1 + norm.eps) ** 0.5).detach().unsqueeze(0))
    assert two["result"].shape == (0, 3)
    assert int(one["count"]) == int(two["count"]) == 0


def test_two_processes_pool_like_one(both: Both) -> None:
    one, two = (found["pooling"] for found in both)
    torch.manual_seed(0)
    pooling = GlobalContrastPooling(6, 4)
    bags = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(8)).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]).bool()
    pooled = pooling(bags, mask)
    pooled.values.square().sum().backward()
    torch.testing.assert_close(torch.cat([one["values"], two["values"]]), pooled.values.detach())
    torch.testing.assert_close(torch.cat([one["gradient"], two["gradient"]]), bags.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(one["concepts"] + two["concepts"], pooling.concepts.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lobes", [True, False])
def test_two_processes_train_the_network_like_one(both: Both, lobes: bool) -> None:
    one, two = (found["network" if lobes else "network without lobes"] for found in both)
    model = small_model().double().train()
    batch, lobes_for = _network_inputs()
    output = model(batch, lobes_for if lobes else None)
    (_network_loss(output) + model.anchor()).backward()
    torch.testing.assert_close(torch.cat([one["severity"], two["severity"]]), output.severity.detach())
    if lobes:
        torch.testing.assert_close(one["lobes"], output.lobes.detach())
        assert two["lobes"].shape == (0, 7, 32, 32)
    else:
        assert one["lobes"] is None and two["lobes"] is None
    for name, parameter in model.named_parameters():
        together = one["gradients"][name] + two["gradients"][name]
        # A bias before a normalisation has a gradient of zero but for rounding.
        torch.testing.assert_close(together, parameter.grad, atol=1e-10, rtol=1e-6)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(one["state"][key], tensor)


def test_local_statistics_wait_for_nobody(both: Both) -> None:
    assert both[0]["processes"] == both[1]["processes"] == 1
