"""Where a severity decision comes from: contributions of patches, and of the positions in them, to the log-odds.

Every method gives the same thing, a sum that is complete: ``margin = base + positions.sum()``. ``base`` is what the
method would say if every position were an average one. How the rest is shared out is each method's own:

* Global contrast pooling: a maximum depends on its winners alone, so the log-odds are a smooth function of the winning
  scores, ``m(t)``. Their gradient, integrated along the straight path from the average scores (integrated gradients,
  Sundararajan et al. 2017, ICML, Eq. 1), gives each winner its part, which falls on the position that won.
* Gated attention: the log-odds are linear in the positions' features once the weights are taken as they are.
* Maximum over patches: linear in the winning patch's positions; no other patch has a part.

Positions are coarse (16 pixels and more), so every method also gives a finer map: the gradient of the log-odds at an
early map of the encoder, a quarter of the image's size, times how far the activation departs from the average one,
summed over channels (LayerCAM, Jiang et al. 2021, IEEE TIP 30:5875-5888, without its rectification). It tells where
within the patches the evidence lies; its sum is not the log-odds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from m2unet.models.batch import ModelOutput

FINE_CHUNK = 16
"""Patches whose finer map is computed at once."""

STEPS = 64
"""Points of the path over which a gradient is integrated."""


@dataclass(frozen=True)
class Evidence:
    """What the log-odds of one bag are made of.

    Attributes:
        output: what the network says of the bag, severity ``[1, 2]``.
        positions: ``[n, h, w]`` float32, the part of each feature position of each patch, in log-odds; positive speaks
            for severe. Positions tile the patch evenly.
        base: the log-odds of a bag of average positions.
        fine: ``[n, h', w']`` float32, the finer map.
    """

    output: ModelOutput
    positions: Tensor
    base: float
    fine: Tensor

    @property
    def margin(self) -> float:
        """The bag's log-odds of severe: the severe logit less the other."""
        return float(margin_of(self.output))


def margin_of(output: ModelOutput) -> Tensor:
    """Log-odds of severe of a batch of one bag, a scalar."""
    if output.severity is None or output.severity.shape[0] != 1:
        raise ValueError("evidence is gathered of one bag at a time, by a network that gives severity")
    return output.severity[0, 1] - output.severity[0, 0]


def integrated_gradients(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Share ``function(end) - function(start)`` among the entries of the argument.

    The integral is taken by the midpoint rule; what that leaves over (the function has kinks) is shared in proportion
    to the size of the parts, so that they add up exactly.

    Args:
        function: ``[S, ...]`` to ``[S]``, each row for itself.
        start, end: ``[...]``.
        steps: points of the path.

    Returns:
        The parts ``[...]`` and ``function(start)``.
    """
    shape = (steps, *([1] * end.dim()))
    share = ((torch.arange(steps, dtype=end.dtype, device=end.device) + 0.5) / steps).view(shape)
    with torch.enable_grad():
        path = (start + share * (end - start)).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(function(path).sum(), path)
    parts = slope.mean(dim=0) * (end - start)
    with torch.no_grad():
        first, last = function(torch.stack([start, end])).unbind()
        left = (last - first) - parts.sum()
        size = parts.abs()
        parts = parts + left * size / size.sum().clamp(min=torch.finfo(size.dtype).tiny)
    return parts, first


def slope_at(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Gradient of a scalar function at ``values``, of their shape."""
    with torch.enable_grad():
        leaf = values.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(function(leaf), leaf)
    return slope


def fine_parts(
    start: Callable[[Tensor], Tensor], rest: Callable[[Tensor], Tensor], images: Tensor, slope: Tensor
) -> Tensor:
    """The finer map ``[n, h', w']`` of patches: gradient at an early map times departure from its mean.

    Args:
        start: images ``[n, c, H, W]`` to the early map ``[n, c', h', w']``.
        rest: the early map to vectors ``[n, d]``, each patch for itself.
        images: of the patches.
        slope: ``[n, d]``, the gradient of the log-odds at those vectors.
    """
    activations, gradients = [], []
    for part, pull in zip(images.split(FINE_CHUNK), slope.split(FINE_CHUNK), strict=True):
        with torch.no_grad():
            early = start(part).float()
        activations.append(early)
        gradients.append(slope_at(lambda leaf, pull=pull: (rest(leaf) * pull).sum(), early))  # type: ignore[misc]
    held, pulled = torch.cat(activations), torch.cat(gradients)
    return (pulled * (held - held.mean(dim=(0, 2, 3), keepdim=True))).sum(dim=1)


def spread(values: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Rows of some patches ``[u, ...]`` among those of all ``[count, ...]``; zero elsewhere."""
    whole = values.new_zeros((count, *values.shape[1:]))
    whole[chosen] = values
    return whole


def linear_evidence(
    output: ModelOutput, features: Tensor, head: torch.nn.Linear, weights: Tensor, fine: Tensor
) -> Evidence:
    """Evidence of a linear head on a weighted mean of patches, each the mean of its positions.

    Args:
        output: of the bag.
        features: ``[n, d, h, w]``.
        head: ``d`` to the two logits.
        weights: ``[n]``, of the patches; they add up to one.
        fine: the finer map.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        features = features.float()
        direction = head.weight[1] - head.weight[0]
        average = features.mean(dim=(0, 2, 3))
        parts = torch.einsum("ndhw,d->nhw", features - average[None, :, None, None], direction)
        parts = parts * weights[:, None, None] / parts[0].numel()
    return Evidence(output, parts, float(margin_of(output) - parts.sum()), fine)
