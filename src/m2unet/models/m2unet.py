"""M²UNet (He et al. 2020, Table I): one encoder, a hierarchy of two multi-instance stages, and a lobe decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import LOBES, SEVERITY, SeverityModel, bag_signature, check_bags, check_single, of_bags, to_bags
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.decoder import Decoder
from m2unet.models.encoder import STRIDE, Encoder
from m2unet.models.evidence import Evidence, fine_parts, integrated_gradients, slope_at, spread
from m2unet.models.pooling import GlobalContrastPooling, Pooled


class ContrastStage(nn.Module):
    """Global contrast pooling, then a 1 x 1 convolution (on one vector: a linear map), optionally a ReLU.

    Args:
        inputs: length of an instance vector.
        concepts: concepts, and length of the result.
        config: for ``pooling_norm``, ``similarity`` and ``activation``.
    """

    def __init__(self, inputs: int, concepts: int, config: ModelConfig) -> None:
        super().__init__()
        self.pooling = GlobalContrastPooling(inputs, concepts, norm=config.pooling_norm, similarity=config.similarity)
        self.project = nn.Linear(concepts, concepts)
        self.activation = config.activation

    def forward(self, instances: Tensor, mask: Tensor | None = None) -> Pooled:
        """Bags ``[B, K, inputs]``, mask ``[B, K]``, to values ``[B, concepts]`` and the winners of the pooling."""
        pooled = self.pooling(instances, mask)
        return Pooled(self.head(pooled.values), pooled.winners)

    def head(self, scores: Tensor) -> Tensor:
        """Pooled scores ``[..., concepts]`` to values ``[..., concepts]``."""
        with torch.autocast(scores.device.type, enabled=False):
            values = self.project(scores)
        return F.relu(values) if self.activation else values


class M2UNet(SeverityModel):
    """M²UNet, or one of its halves.

    Args:
        config: sizes; the defaults are Table I.
        tasks: ``severity`` gives the two multi-instance stages and the classifier, ``lobes`` the decoder.

    Raises:
        ValueError: no task at all.
    """

    stride = STRIDE

    def __init__(self, config: ModelConfig, tasks: frozenset[str] = frozenset({SEVERITY, LOBES})) -> None:
        super().__init__(config, tasks)
        if not tasks or not tasks <= {SEVERITY, LOBES}:
            raise ValueError(f"tasks must be some of {SEVERITY!r} and {LOBES!r}, found {sorted(tasks)}")
        self.encoder = Encoder(self.in_channels, config.width, config.deep_width)
        if SEVERITY in tasks:
            self.embedding_mil = ContrastStage(config.deep_width, config.instance_concepts, config)
            self.image_mil = ContrastStage(config.instance_concepts, config.bag_concepts, config)
            self.classifier = nn.Linear(config.bag_concepts, 2)
        if LOBES in tasks:
            self.decoder = Decoder(config.deep_width, config.width, config.classes)

    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """See :meth:`SeverityModel.forward`. The decoder runs for the bags of ``lobes_for`` only."""
        check_bags(batch.mask)
        maps = self.encode(batch.inputs(position=self.config.position))
        lobe_bags = self._lobe_bags(batch, lobes_for)
        lobes = None
        if lobe_bags is not None:
            lobes = self.decode([of_bags(each, batch.mask, lobe_bags) for each in maps])
        if SEVERITY not in self.tasks:
            return ModelOutput(lobes=lobes, lobe_bags=lobe_bags)
        instances = self.pool_positions(maps)
        decision = self.classify(to_bags(instances.values, batch.mask), batch.mask)
        return ModelOutput(
            severity=decision.severity,
            lobes=lobes,
            lobe_bags=lobe_bags,
            embedding=decision.embedding,
            image_winners=decision.image_winners,
            position_winners=to_bags(instances.winners, batch.mask, fill=-1),
            signature=None if self.training else bag_signature(maps, batch.mask),
        )

    def encode(self, images: Tensor) -> list[Tensor]:
        """The encoder's five maps of ``[N, in_channels, H, W]``; :meth:`decode` and :meth:`pool_positions` take them.

        Raises:
            ModelError: wrong channels, or a size that does not fit.
        """
        self.check_images(images)
        return self.encoder(images, recompute=self.recompute)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Lobe logits ``[N, c, H, W]`` from the encoder's maps."""
        if LOBES not in self.tasks:
            raise self._without(LOBES)
        return self.decoder(maps, recompute=self.recompute)

    def pool_positions(self, maps: Sequence[Tensor]) -> Pooled:
        """Embedding level: each patch is a bag of its feature positions (row-major).

        Returns:
            Values ``[N, p]``, the patches' embeddings, and winners ``[N, p]``, positions in the deepest map.
        """
        if SEVERITY not in self.tasks:
            raise self._without(SEVERITY)
        return self.embedding_mil(maps[-1].flatten(2).transpose(1, 2))

    def segment(self, images: Tensor) -> Tensor:
        """See :meth:`SeverityModel.segment`."""
        return self.decode(self.encode(images))

    def embed(self, images: Tensor) -> Tensor:
        """See :meth:`SeverityModel.embed`; d is the number of embedding-level concepts."""
        return self.pool_positions(self.encode(images)).values

    def classify(self, embeddings: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """Image level: the scan is a bag of its patches. See :meth:`SeverityModel.classify`."""
        if SEVERITY not in self.tasks:
            raise self._without(SEVERITY)
        pooled = self.image_mil(embeddings, mask)
        with torch.autocast(embeddings.device.type, enabled=False):
            severity = self.classifier(pooled.values)
        return ModelOutput(severity=severity, embedding=pooled.values, image_winners=pooled.winners)

    def evidence(self, batch: Batch) -> Evidence:
        """See :meth:`SeverityModel.evidence`: integrated gradients of the log-odds on the winning scores."""
        if SEVERITY not in self.tasks:
            raise self._without(SEVERITY)
        check_single(batch)
        images = batch.inputs(position=self.config.position)
        with torch.no_grad():
            maps = self.encode(images)
            deepest = maps[-1].float()
            instances = deepest.flatten(2).transpose(1, 2)
            pooled = self.embedding_mil.pooling(instances)
            output = self.classify(self.embedding_mil.head(pooled.values).unsqueeze(0))
            output = replace(output, signature=bag_signature(maps, batch.mask))
            assert output.image_winners is not None
            chosen, order = output.image_winners[0].unique(return_inverse=True)
            won, reached = pooled.winners[chosen], pooled.values[chosen]
            average = self.embedding_mil.pooling.average(instances).expand_as(reached)
        parts, base = integrated_gradients(lambda scores: self._margin(scores, order), average, reached)
        placed = parts.new_zeros(len(chosen), instances.shape[1]).scatter_add_(1, won, parts)
        positions = spread(placed, chosen, len(images)).view(len(images), *deepest.shape[2:])
        slope = slope_at(lambda scores: self._margin(scores.unsqueeze(0), order).sum(), reached)
        encoder = self.plain_encoder()
        fine = fine_parts(encoder.early, lambda early: self._scores(encoder.from_early(early)), images[chosen], slope)
        return Evidence(output, positions, float(base), spread(fine, chosen, len(images)))

    def plain_encoder(self) -> Encoder:
        """The encoder whose gradients explain; what computes faster may have none."""
        return self.encoder

    def _scores(self, deepest: Tensor) -> Tensor:
        """Pooled scores ``[N, p]`` of deepest maps."""
        return self.embedding_mil.pooling(deepest.flatten(2).transpose(1, 2)).values

    def _margin(self, scores: Tensor, order: Tensor) -> Tensor:
        """Log-odds ``[S]`` from the scores ``[S, u, p]`` of the winning patches; ``order`` ``[q]``: whose each is."""
        embeddings = self.embedding_mil.head(scores)
        pooling = self.image_mil.pooling
        reached = pooling.scores(embeddings.flatten(0, 1)).view(*embeddings.shape[:2], -1)
        logits = self.classifier(self.image_mil.head(reached[:, order, torch.arange(len(order))]))
        return logits[:, 1] - logits[:, 0]
