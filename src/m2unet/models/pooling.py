"""Global contrast pooling (GCP), Eqs. 1-2 of He et al. 2020: a bag of vectors becomes one vector of concept scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from m2unet.models.norm import BatchNorm

PoolingNorm = Literal["batch", "bias", "none"]
Similarity = Literal["cosine", "dot"]

# Added in quadrature to a vector's length: invisible in float32 at unit length, and bounds the gradient at zero.
LENGTH_EPS = 1e-4


@dataclass(frozen=True)
class Pooled:
    """What pooling makes of bags.

    Attributes:
        values: ``[B, p]`` score of each concept.
        winners: ``[B, p]`` int64, index in the bag of the instance that gave each score.
    """

    values: Tensor
    winners: Tensor


class GlobalContrastPooling(nn.Module):
    """Similarity of each instance with learned concepts, normalised per concept, maximum over the bag.

    The normalisation runs over all real instances of all bags, before the maximum. The result does not depend on the
    order of the instances. Everything is computed in the parameters' dtype, also under autocast.

    Args:
        in_features: length d of an instance vector.
        concepts: number p of concept vectors.
        norm: ``batch`` (batch normalisation per concept), ``bias`` (one learned number per concept) or ``none``.
        similarity: ``cosine`` of instance and concept, or their plain ``dot`` product.
    """

    def __init__(
        self, in_features: int, concepts: int, *, norm: PoolingNorm = "batch", similarity: Similarity = "cosine"
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.concepts = nn.Parameter(torch.empty(concepts, in_features))
        self.norm = BatchNorm(concepts) if norm == "batch" else None
        self.bias = nn.Parameter(torch.zeros(concepts)) if norm == "bias" else None
        nn.init.normal_(self.concepts, std=in_features**-0.5)

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> Pooled:
        """Pool ``[B, K, d]`` bags of K instances.

        Args:
            instances: ``[B, K, d]``.
            mask: ``[B, K]`` bool, True where an instance is real; None if all are.

        Raises:
            ValueError: wrong shapes, or a bag without any instance.
        """
        self._check(instances, mask)
        bags, length, _ = instances.shape
        with torch.autocast(instances.device.type, enabled=False):
            real = instances.flatten(0, 1) if mask is None else instances[mask]
            scores = self.scores(real)
            if mask is None:
                scores = scores.view(bags, length, -1)
            else:
                nowhere = scores.new_full((bags, length, scores.shape[-1]), -torch.inf)
                scores = nowhere.index_put((mask,), scores)
            values, winners = scores.max(dim=1)
        return Pooled(values, winners)

    def scores(self, instances: Tensor) -> Tensor:
        """Normalised similarity of ``[M, d]`` instances with every concept, ``[M, p]``."""
        instances = instances.to(self.concepts.dtype)
        if self.similarity == "cosine":
            scores = unit_vectors(instances) @ unit_vectors(self.concepts).T
        else:
            scores = instances @ self.concepts.T
        if self.norm is not None:
            return self.norm(scores)
        return scores if self.bias is None else scores + self.bias

    def average(self, instances: Tensor) -> Tensor:
        """Scores ``[p]`` of an average instance: of all training instances under ``batch``, else of ``instances``.

        Args:
            instances: ``[B, K, d]``.
        """
        if self.norm is not None and not self.training:
            return self.norm.bias
        return self.scores(instances.flatten(0, 1)).mean(dim=0)

    def _check(self, instances: Tensor, mask: Tensor | None) -> None:
        if instances.dim() != 3 or instances.shape[2] != self.concepts.shape[1]:
            raise ValueError(f"expected [B, K, {self.concepts.shape[1]}], found {tuple(instances.shape)}")
        if instances.shape[1] == 0:
            raise ValueError("a bag without instances cannot be pooled")
        if mask is None:
            return
        if mask.shape != instances.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"expected a bool mask {tuple(instances.shape[:2])}, found {mask.dtype} {tuple(mask.shape)}"
            )
        empty = torch.nonzero(~mask.any(dim=1)).flatten().tolist()
        if empty:
            raise ValueError(f"a bag without instances cannot be pooled: bags {empty} of the batch are empty")


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors along the last axis scaled to length one; all-zero ones stay zero, with a finite gradient."""
    return vectors * (vectors.square().sum(dim=-1, keepdim=True) + LENGTH_EPS**2).rsqrt()
