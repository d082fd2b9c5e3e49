"""Scores of a model on validation scans while it trains: a few bags, patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from m2unet.anatomy import UNDECIDED
from m2unet.bags.batch import make_batch
from m2unet.bags.sampling import draw_bag
from m2unet.cohort.store import Store
from m2unet.config import Config
from m2unet.evaluation.classification import area_under_curve
from m2unet.evaluation.segmentation import OverlapCounter


@dataclass(frozen=True)
class BagValidator:
    """Validates on one seeded bag a scan, the same bags every time.

    Attributes:
        store: where the prepared scans lie.
        scan_ids: the validation scans.
        config: the run's configuration.
        device: where the model is.
    """

    store: Store
    scan_ids: Sequence[str]
    config: Config
    device: torch.device

    @torch.inference_mode()
    def __call__(self, model: Any) -> dict[str, float | None]:
        """Figures of the model, in evaluation mode.

        Returns:
            ``auc`` over scans with a label, ``dsc``: mean over scans with lobes of the mean lobe Dice of their patches,
            and ``score``, the mean of those that are defined (None if neither is).
        """
        labels: list[int] = []
        probabilities: list[float] = []
        dice: list[float] = []
        for scan_id in self.scan_ids:
            scan = self.store.open(scan_id)
            bag = draw_bag(scan, self.config.bag, np.random.default_rng([self.config.seed, 0x7A11]))
            settings = self.config.model
            batch = make_batch([bag], self.config.window, position=settings.position, classes=settings.classes)
            wanted = batch.has_lobes if bool(batch.has_lobes.any()) and "lobes" in model.tasks else None
            output = model(batch.to(self.device), lobes_for=wanted)
            if output.severity is not None and bag.severity >= 0:
                labels.append(bag.severity)
                probabilities.append(float(torch.softmax(output.severity.float(), 1)[0, 1]))
            if output.lobes is not None and bag.lobes is not None:
                counter = OverlapCounter()
                known = bag.lobes != UNDECIDED
                counter.add(bag.lobes[known], output.lobes.argmax(1).to(torch.uint8).cpu().numpy()[known])
                mean = counter.metrics().dsc
                dice += [] if mean is None else [mean]
        auc = area_under_curve(labels, probabilities) if labels else None
        dsc = float(np.mean(dice)) if dice else None
        defined = [value for value in (auc, dsc) if value is not None]
        return {"auc": auc, "dsc": dsc, "score": float(np.mean(defined)) if defined else None}
