"""What every network offers to training and inference, whichever tasks it has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from m2unet.config import ModelConfig
from m2unet.errors import ModelError
from m2unet.models.batch import Batch, ModelOutput
from m2unet.models.evidence import Evidence
from m2unet.models.norm import processes

SEVERITY = "severity"
LOBES = "lobes"


class SeverityModel(nn.Module):
    """A network over bags of patches: severity of the bag, lobes of its patches, or both.

    Attributes:
        config: the sizes it was built with.
        tasks: what it gives, a subset of ``{"severity", "lobes"}``.
        checkpointing: recompute activations in the backward pass instead of keeping them.

    Args:
        config: see :class:`m2unet.config.ModelConfig`.
        tasks: what it gives.
    """

    stride: int = 16
    """Height and width of images must be multiples of this."""

    def __init__(self, config: ModelConfig, tasks: frozenset[str]) -> None:
        super().__init__()
        self.config = config
        self.tasks = tasks
        self.checkpointing = False

    @property
    def in_channels(self) -> int:
        """1, or 4 with position channels."""
        return 4 if self.config.position else 1

    @abstractmethod
    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """Run on a batch of bags.

        Args:
            batch: the bags; only real instances are looked at.
            lobes_for: ``[B]`` bool, the bags whose lobes are wanted; None for no bag.

        Raises:
            ValueError: a bag without instances, or position channels wanted and absent.
        """

    def segment(self, images: Tensor) -> Tensor:
        """Lobe logits ``[N, c, H, W]`` of images ``[N, in_channels, H, W]`` of any size divisible by ``stride``.

        Raises:
            ModelError: the network has no lobes, or the size does not fit.
        """
        raise self._without(LOBES)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings ``[N, d]`` of patches ``[N, in_channels, H, W]``, each for itself; ``classify`` takes them.

        Raises:
            ModelError: the network has no severity, or the size does not fit.
        """
        raise self._without(SEVERITY)

    def classify(self, embeddings: Tensor, mask: Tensor | None = None) -> ModelOutput:
        """Severity of bags of embedded patches, without the lobes.

        Args:
            embeddings: ``[B, n, d]`` as :meth:`embed` gives them.
            mask: ``[B, n]`` bool, True where real; None if all are.

        Raises:
            ModelError: the network has no severity.
            ValueError: a bag without instances.
        """
        raise self._without(SEVERITY)

    def evidence(self, batch: Batch) -> Evidence:
        """What the severity of one bag is made of: the part of every position of every patch.

        Args:
            batch: of one bag without padding; the network in evaluation mode.

        Raises:
            ModelError: the network has no severity.
            ValueError: several bags, or padding.
        """
        raise self._without(SEVERITY)

    def anchor(self) -> Tensor:
        """A zero that depends on every parameter.

        Added to a loss it gives every parameter a gradient, so that a distributed wrapper which waits for all of them
        is content in a step that leaves some out (the decoder, where no bag has lobes).
        """
        return torch.stack([parameter.sum() * 0.0 for parameter in self.parameters()]).sum()

    def check_images(self, images: Tensor) -> None:
        """Raise a :class:`ModelError` unless images are ``[N, in_channels, H, W]`` and fit the stride."""
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise ModelError(
                "The images do not have the network's channels",
                found=f"shape {tuple(images.shape)}",
                expected=f"[N, {self.in_channels}, H, W]",
            )
        height, width = images.shape[2:]
        if height % self.stride or width % self.stride or not height or not width:
            raise ModelError(
                "Height and width of images must be multiples of the network's stride",
                found=f"{height} x {width}",
                expected=f"multiples of {self.stride}",
                mend=f"pad to {_next(height, self.stride)} x {_next(width, self.stride)} and crop the result",
            )

    @property
    def recompute(self) -> bool:
        """Whether activations are to be recomputed now: asked for, and training."""
        return self.checkpointing and self.training

    def _without(self, task: str) -> ModelError:
        return ModelError(
            f"The network {self.config.name!r} has no {task}", found=f"tasks {sorted(self.tasks)}", expected=task
        )

    def _lobe_bags(self, batch: Batch, lobes_for: Tensor | None) -> Tensor | None:
        """The bags to decode, ``[B]`` bool, or None to skip the decoder.

        In training over several processes all decode or none does, because normalisations inside wait for each other;
        a process without such bags then decodes nothing at all, an empty tensor.
        """
        if LOBES not in self.tasks:
            return None
        chosen = torch.zeros_like(batch.has_lobes) if lobes_for is None else lobes_for.to(batch.mask.device)
        if chosen.shape != (batch.bags,) or chosen.dtype != torch.bool:
            raise ValueError(f"expected a bool lobes_for ({batch.bags},), found {chosen.dtype} {tuple(chosen.shape)}")
        wanted = chosen.any()
        if self.training and processes() > 1:
            flag = wanted.to(torch.int32)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            wanted = flag.bool()
        return chosen if bool(wanted) else None


class LobeModel(SeverityModel):
    """A network that gives lobes alone: a subclass has only to segment images."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, frozenset({LOBES}))

    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """See :meth:`SeverityModel.forward`; patches of other bags are not looked at."""
        check_bags(batch.mask)
        lobe_bags = self._lobe_bags(batch, lobes_for)
        if lobe_bags is None:
            return ModelOutput()
        images = batch.inputs(position=self.config.position)
        return ModelOutput(lobes=self.segment(of_bags(images, batch.mask, lobe_bags)), lobe_bags=lobe_bags)


class InstanceModel(SeverityModel):
    """A network that gives severity alone, by :meth:`embed` and :meth:`classify`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, frozenset({SEVERITY}))

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """Maps ``[N, c, h, w]`` of images ``[N, in_channels, H, W]`` at several depths, the deepest last.

        Raises:
            ModelError: wrong channels, or a size that does not fit.
        """

    def embed(self, images: Tensor) -> Tensor:
        """See :meth:`SeverityModel.embed`: mean over the positions of the deepest map."""
        return mean_of(self.encode(images)[-1])

    def forward(self, batch: Batch, lobes_for: Tensor | None = None) -> ModelOutput:
        """See :meth:`SeverityModel.forward`; there are no lobes."""
        check_bags(batch.mask)
        maps = self.encode(batch.inputs(position=self.config.position))
        output = self.classify(to_bags(mean_of(maps[-1]), batch.mask), batch.mask)
        return output if self.training else replace(output, signature=bag_signature(maps, batch.mask))


def of_bags(values: Tensor, mask: Tensor, bags: Tensor) -> Tensor:
    """Rows of ``values`` ``[N, ...]``, one a real instance of ``mask`` ``[B, n]``, that belong to ``bags`` ``[B]``."""
    if bool(bags.all()):
        return values
    return values[bags.unsqueeze(1).expand_as(mask)[mask]]


def to_bags(values: Tensor, mask: Tensor, *, fill: float | int = 0) -> Tensor:
    """Spread ``[N, ...]``, one row a real instance, over ``[B, n, ...]``; masked places hold ``fill``."""
    padded = values.new_full((*mask.shape, *values.shape[1:]), fill)
    return padded.index_put((mask,), values)


def mean_of(maps: Tensor) -> Tensor:
    """Mean over the positions of maps ``[N, c, h, w]``, float32 ``[N, c]``."""
    return maps.float().mean(dim=(2, 3))


def bag_signature(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """What an encoder saw of bags: :attr:`m2unet.models.batch.ModelOutput.signature`.

    Args:
        maps: the encoder's maps ``[N, c_i, h_i, w_i]`` of the real instances of ``mask``, in order.
        mask: ``[B, n]`` bool, at least one real instance a bag.

    Returns:
        ``[B, 2k]`` float32, k the sum of the channels: means, then standard deviations.
    """
    real = mask.unsqueeze(-1)
    padded = to_bags(torch.cat([mean_of(each) for each in maps], dim=1).detach(), mask)
    count = real.sum(dim=1).clamp(min=1)
    mean = padded.sum(dim=1) / count
    spread = ((padded - mean.unsqueeze(1)).square() * real).sum(dim=1).div(count).sqrt()
    return torch.cat([mean, spread], dim=1)


def check_bags(mask: Tensor) -> None:
    """Raise a ValueError naming the bags of ``mask`` ``[B, n]`` that hold no instance."""
    empty = torch.nonzero(~mask.any(dim=1)).flatten().tolist()
    if empty:
        raise ValueError(f"bags {empty} of the batch have no instance")


def check_single(batch: Batch) -> None:
    """Raise a ValueError unless the batch is one bag without padding."""
    if batch.bags != 1 or not bool(batch.mask.all()):
        raise ValueError(f"evidence is gathered of one bag without padding, found a mask {tuple(batch.mask.shape)}")


def _next(size: int, stride: int) -> int:
    return max(-(-size // stride), 1) * stride
