"""Which processes train together (torchrun), and the few collectives training needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from m2unet.errors import ConfigError


@dataclass(frozen=True)
class World:
    """The processes that share each step.

    Attributes:
        rank: this process, 0 writes files.
        size: how many processes.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum_int(self, value: int, device: torch.device) -> int:
        """Sum of an integer over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.int64, device=device)
        dist.all_reduce(total)
        return int(total)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum every parameter's gradient over all processes; a parameter without one counts as zero."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        start = 0
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA if there is one, else CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: for a CUDA device on a machine without one, or an unknown name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("There is no such device", found=name, expected="auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device on this machine", found=name, mend="use --device cpu")
    return device


def device_name(device: torch.device) -> str:
    """What the device calls itself; ``cpu`` for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@contextmanager
def joined_world(device: str = "auto") -> Iterator[World]:
    """The world torchrun started this process in, or a world of one. Leaves the process group when done."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=choose_device(device))
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield World(rank=rank, size=size, device=chosen)
    finally:
        dist.destroy_process_group()
