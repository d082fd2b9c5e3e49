"""What inference needs of a network, whichever it is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from m2unet.models.batch import Batch


class Network(Protocol):
    """A network of the registry: takes batches, segments whole slices."""

    tasks: frozenset[str]

    def __call__(self, batch: Batch, lobes_for: Tensor | None = None) -> Any:
        """Severity, lobes and winners of a batch: a :class:`~m2unet.models.batch.ModelOutput`."""

    def evidence(self, batch: Batch) -> Any:
        """What the severity of one bag is made of: an :class:`~m2unet.models.evidence.Evidence`."""

    def segment(self, images: Tensor) -> Tensor:
        """Lobe logits ``[N, c, H, W]`` of images ``[N, 1 or 4, H, W]``."""
