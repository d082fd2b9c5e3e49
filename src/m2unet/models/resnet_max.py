"""ResNet-50 on each patch, the scan's score being the maximum over its patches: Table II's first row.

It is not trained as multi-instance learning: in training every patch carries its scan's label
(``ModelOutput.instance_severity``), and only the answer for a scan takes the maximum.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.models.base import InstanceModel, bag_signature, check_bags, check_single, mean_of
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.blocks import apply
from m2unet.models.evidence import Evidence, fine_parts, linear_evidence, spread
from m2unet.models.norm import adopt_batch_norm

STANDARD_WIDTH = 64


class ResNetMax(InstanceModel):
    """MONAI's ResNet-50 in two dimensions (stride 2 in its first convolution, as He et al. 2016 have it).

    Args:
        config: ``width`` (64 is the standard network; others scale every layer) and ``position`` are used.
    """

    stride = 1

    def __init__(self, config: ModelConfig) -> None:
        from monai.networks.nets.resnet import resnet50

        super().__init__(config)
        self.network = resnet50(
            spatial_dims=2,
            n_input_channels=self.in_channels,
            num_classes=2,
            conv1_t_stride=2,
            bias_downsample=False,
            widen_factor=config.width / STANDARD_WIDTH,
        )
        adopt_batch_norm(self.network)

    def encode(self, images: Tensor) -> list[Tensor]:
        """See :meth:`m2unet.models.base.InstanceModel.encode`; the deepest of 2048 channels at the standard width."""
        self.check_images(images)
        net, maps = self.network, []
        for stage in (self._stem, net.layer1, net.layer2, net.layer3, net.layer4):
            images = apply(stage, images, recompute=self.recompute)
            maps.append(images)
        return maps

    def classify(self, embeddings: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """See :meth:`m2unet.models.base.SeverityModel.classify`.

        The severity logits, embedding and winner ``[B, 1]`` are those of the patch with the highest probability of
        severe disease; attention holds that probability for every patch.
        """
        if mask is None:
            mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        check_bags(mask)
        with torch.autocast(embeddings.device.type, enabled=False):
            head: nn.Module = self.network.fc
            logits: Tensor = head(embeddings)
        margin = (logits[..., 1] - logits[..., 0]).masked_fill(~mask, -torch.inf)
        winner = margin.argmax(dim=1)
        bag = torch.arange(len(winner), device=winner.device)
        return ModelOutput(
            severity=logits[bag, winner],
            embedding=embeddings[bag, winner],
            image_winners=winner.unsqueeze(1),
            attention=margin.sigmoid(),
            instance_severity=logits.masked_fill(~mask.unsqueeze(-1), 0.0),
        )

    def evidence(self, batch: Batch) -> Evidence:
        """See :meth:`m2unet.models.base.SeverityModel.evidence`: positions of the winning patch (class activation)."""
        check_single(batch)
        images, net = batch.inputs(position=self.config.position), self.network
        with torch.no_grad():
            maps = self.encode(images)
            features = maps[-1]
            output = self.classify(mean_of(features).unsqueeze(0))
            output = replace(output, signature=bag_signature(maps, batch.mask))
        assert output.image_winners is not None
        winner = output.image_winners[0]
        weights = torch.zeros(len(features), device=features.device)
        weights[winner] = 1.0
        slope = (net.fc.weight[1] - net.fc.weight[0]).detach().unsqueeze(0)
        fine = fine_parts(
            lambda part: net.layer1(self._stem(part)),
            lambda early: net.avgpool(net.layer4(net.layer3(net.layer2(early)))).flatten(1),
            images[winner],
            slope,
        )
        return linear_evidence(output, features, net.fc, weights, spread(fine, winner, len(images)))

    def _stem(self, images: Tensor) -> Tensor:
        net = self.network
        return net.maxpool(net.act(net.bn1(net.conv1(images))))
