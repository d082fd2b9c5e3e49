"""The one batch normalisation of every network here: 2-D maps, plain vectors, and statistics over several processes.

Torch's own ``SyncBatchNorm`` refuses CPU tensors and cannot be used inside a masked pooling; this one does both, and
its running statistics stay untouched while activation checkpointing computes a block a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_frozen: ContextVar[bool] = ContextVar("m2unet_frozen_running_statistics", default=False)
_local: ContextVar[bool] = ContextVar("m2unet_local_statistics", default=False)


@contextmanager
def frozen_running_statistics() -> Iterator[None]:
    """Within this context a training-mode forward normalises as ever but leaves all running statistics alone."""
    token = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(token)


@contextmanager
def local_statistics() -> Iterator[None]:
    """Within this context no process waits for another: statistics are those of this process's data alone.

    For forward passes without a backward pass, which would not know of it.
    """
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


def processes() -> int:
    """Number of processes that share batch statistics now; 1 outside ``torch.distributed``."""
    if _local.get() or not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size()


class BatchNorm(_BatchNorm):
    """Batch normalisation over every axis but the second, of ``[N, C]`` or ``[N, C, ...]``.

    With ``torch.distributed`` initialised, more than one process and training mode, mean and variance are those of
    all processes' data together, each value counting once however unequally they are spread (a process may bring
    none). Statistics are computed in at least float32. Of a single value there is no variance: then the running
    statistics stand in, and are not updated. Parameters and buffers are named as in :class:`torch.nn.BatchNorm2d`.

    Args:
        features: number of channels C.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics; None for a cumulative average.
        synchronise: share statistics between processes.
    """

    def __init__(
        self, features: int, *, eps: float = 1e-5, momentum: float | None = 0.1, synchronise: bool = True
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum)
        self.synchronise = synchronise

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's word
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"expected [N, {self.num_features}, ...], found {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's word
        """Normalise ``[N, C, ...]``; same shape and dtype out.

        Raises:
            ValueError: if the second axis does not have C entries.
        """
        self._check_input_dim(input)
        if not self.training:
            return self._by_running(input)
        if self.synchronise and processes() > 1:
            return self._over_processes(input)
        if input.numel() < 2 * self.num_features:
            return self._by_running(input)
        mean, variance = self.running_mean, self.running_var
        assert mean is not None and variance is not None
        if _frozen.get():  # copies, because the recomputed graph must save as many tensors as the first
            return F.batch_norm(input, mean.clone(), variance.clone(), self.weight, self.bias, True, 0.0, self.eps)
        factor = self._count_batch()
        return F.batch_norm(input, mean, variance, self.weight, self.bias, True, factor, self.eps)

    def _by_running(self, values: Tensor) -> Tensor:
        return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def _count_batch(self) -> float:
        """Count one more batch and return its weight in the running statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def _over_processes(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            mean, squares, total = _global_moments(values)
            if total < 2:
                return self._by_running_tracked(values)
            inverse = (squares / total + self.eps).rsqrt()
            if not _frozen.get():
                assert self.running_mean is not None and self.running_var is not None
                factor = self._count_batch()
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
                self.running_var.lerp_((squares / (total - 1)).to(self.running_var.dtype), factor)
        return _Normalise.apply(values, self.weight, self.bias, mean, inverse, total)

    def _by_running_tracked(self, values: Tensor) -> Tensor:
        with torch.enable_grad():
            return self._by_running(values)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _axes(values: Tensor) -> list[int]:
    return [axis for axis in range(values.dim()) if axis != 1]


def _along_channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *([1] * (like.dim() - 2)))


def _global_moments(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean ``[C]``, sum of squared deviations ``[C]`` and count over all processes (Chan et al. 1979)."""
    wide = _wide(values)
    channels = values.shape[1]
    count = values.numel() // channels
    if count:
        variance, mean = torch.var_mean(wide, dim=_axes(values), correction=0)
    else:
        variance, mean = wide.new_zeros(channels), wide.new_zeros(channels)
    # Counts travel in float64: a float32 cannot hold every count above 2**24.
    sums = torch.cat([mean.double() * count, mean.new_tensor([count], dtype=torch.float64)])
    dist.all_reduce(sums)
    total = round(float(sums[-1]))
    overall = (sums[:-1] / max(total, 1)).to(mean.dtype)
    squares = count * (variance + (mean - overall).square())
    dist.all_reduce(squares)
    return overall, squares, total


class _Normalise(torch.autograd.Function):
    """``weight * (x - mean) / sd + bias`` whose gradient accounts for mean and sd being those of all processes."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, total: int
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, inverse)
        ctx.total = total
        scale = weight * inverse
        shift = bias - mean * scale
        result = torch.addcmul(_along_channels(shift, values), _wide(values), _along_channels(scale, values))
        return result.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, inverse = ctx.saved_tensors
        gradient = _wide(gradients[0])
        standard = (_wide(values) - _along_channels(mean, values)) * _along_channels(inverse, values)
        for_bias = gradient.sum(_axes(values))
        for_weight = (gradient * standard).sum(_axes(values))
        shared = torch.stack([for_bias, for_weight])
        dist.all_reduce(shared)
        shared /= ctx.total
        centred = gradient - _along_channels(shared[0], values) - standard * _along_channels(shared[1], values)
        for_values = (centred * _along_channels(weight * inverse, values)).to(values.dtype)
        return for_values, for_weight.to(weight.dtype), for_bias.to(weight.dtype), None, None, None


def adopt_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every torch batch normalisation inside a foreign network by :class:`BatchNorm`, keeping its values.

    Args:
        module: changed in place.

    Returns:
        The same module.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, BatchNorm):
            ours = BatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            ours.load_state_dict(child.state_dict())
            setattr(module, name, ours)
        else:
            adopt_batch_norm(child)
    return module
