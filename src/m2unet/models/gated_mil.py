"""Gated attention multi-instance learning (Ilse, Tomczak, Welling 2018), one stage, on M²UNet's encoder and bags."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import InstanceModel, bag_signature, check_bags, check_single, mean_of
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.encoder import STRIDE, Encoder
from m2unet.models.evidence import Evidence, fine_parts, linear_evidence, margin_of, slope_at

ATTENTION_WIDTH = 128
"""Length of the hidden vector of the attention, as in Ilse et al."""


class GatedAttention(nn.Module):
    """Weighted mean of a bag's instances h_k, Eqs. 7 and 9 of Ilse et al.: ``z = sum_k a_k h_k`` with
    ``a = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k)))``, without biases, as published.

    Args:
        in_features: length of an instance vector.
        hidden: length of ``w``.
    """

    def __init__(self, in_features: int, hidden: int = ATTENTION_WIDTH) -> None:
        super().__init__()
        self.content = nn.Linear(in_features, hidden, bias=False)
        self.gate = nn.Linear(in_features, hidden, bias=False)
        self.weight = nn.Linear(hidden, 1, bias=False)

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool bags.

        Args:
            instances: ``[B, n, d]``.
            mask: ``[B, n]`` bool, True where real; None if all are.

        Returns:
            The pooled ``[B, d]`` and the attention ``[B, n]``, which adds up to one and is 0 where masked.

        Raises:
            ValueError: a bag without instances.
        """
        if mask is not None:
            check_bags(mask)
        hidden = torch.tanh(self.content(instances)) * torch.sigmoid(self.gate(instances))
        scores = self.weight(hidden).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        attention = scores.softmax(dim=1)
        return torch.einsum("bn,bnd->bd", attention, instances), attention


class GatedMIL(InstanceModel):
    """M²UNet's encoder, mean over each patch's positions, gated attention over the patches, a linear classifier.

    Args:
        config: ``width``, ``deep_width`` and ``position`` are used.
    """

    stride = STRIDE

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(self.in_channels, config.width, config.deep_width)
        self.attention = GatedAttention(config.deep_width)
        self.classifier = nn.Linear(config.deep_width, 2)

    def encode(self, images: Tensor) -> list[Tensor]:
        """See :meth:`m2unet.models.base.InstanceModel.encode`; the deepest map has ``deep_width`` channels."""
        self.check_images(images)
        return self.encoder(images, recompute=self.recompute)

    def classify(self, embeddings: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """See :meth:`m2unet.models.base.SeverityModel.classify`."""
        with torch.autocast(embeddings.device.type, enabled=False):
            pooled, attention = self.attention(embeddings, mask)
            return ModelOutput(severity=self.classifier(pooled), embedding=pooled, attention=attention)

    def evidence(self, batch: Batch) -> Evidence:
        """See :meth:`m2unet.models.base.SeverityModel.evidence`: features times the attention the bag got."""
        check_single(batch)
        images = batch.inputs(position=self.config.position)
        with torch.no_grad():
            maps = self.encode(images)
            features = maps[-1].float()
            embeddings = mean_of(features)
            output = replace(self.classify(embeddings.unsqueeze(0)), signature=bag_signature(maps, batch.mask))
        assert output.attention is not None
        slope = slope_at(lambda rows: margin_of(self.classify(rows.unsqueeze(0))), embeddings)
        encoder = self.encoder
        fine = fine_parts(encoder.early, lambda early: encoder.from_early(early).mean(dim=(2, 3)), images, slope)
        return linear_evidence(output, features, self.classifier, output.attention[0], fine)
