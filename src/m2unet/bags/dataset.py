"""Bags for training: which scans, how often, and each with a random stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from torch.utils.data import Dataset

from m2unet.bags.bag import Bag
from m2unet.bags.sampling import LabelledSource, draw_bag
from m2unet.config import BagConfig
from m2unet.errors import ConfigError


class ScanStore(Protocol):
    """Where scans are opened by name; :class:`m2unet.cohort.store.Store` is one."""

    def open(self, scan_id: str) -> LabelledSource:
        """Open one scan."""


class BagDataset(Dataset[Bag]):
    """One epoch's bags, each drawn when asked for.

    Item i is drawn from a random stream named by (seed, epoch, scan, repetition), where ``scan`` is the place of the
    scan among the distinct ids and ``repetition`` counts its earlier occurrences. A bag therefore depends neither on
    the number of loader processes nor on which bags were drawn before it.

    Args:
        store: where the prepared scans lie.
        scan_ids: one bag an entry; an id that occurs again gets another bag.
        config: how bags are drawn.
        seed: of the run.
        epoch: 0, 1, ...
    """

    def __init__(
        self, store: ScanStore, scan_ids: Sequence[str], config: BagConfig, *, seed: int, epoch: int = 0
    ) -> None:
        self.store = store
        self.scan_ids = tuple(scan_ids)
        self.config = config
        self.seed = seed
        self.epoch = epoch
        places: dict[str, int] = {}
        counts: dict[str, int] = {}
        self._streams: list[tuple[int, int]] = []
        for scan_id in self.scan_ids:
            place = places.setdefault(scan_id, len(places))
            self._streams.append((place, counts.get(scan_id, 0)))
            counts[scan_id] = counts.get(scan_id, 0) + 1

    def __len__(self) -> int:
        return len(self.scan_ids)

    def __getitem__(self, index: int) -> Bag:
        scan, repetition = self._streams[index]
        stream = np.random.SeedSequence([self.seed, self.epoch, scan, repetition])
        return draw_bag(self.store.open(self.scan_ids[index]), self.config, np.random.default_rng(stream))


def oversample(
    scan_ids: Sequence[str],
    severities: Sequence[int | None],
    how: Literal["balance", "none"] | float,
    *,
    seed: int = 0,
) -> list[str]:
    """Repeat severe scans, as the paper does against the imbalance of its cohort.

    Args:
        scan_ids: distinct scans.
        severities: of each: 1 severe, 0 non-severe, None or -1 unknown (kept once).
        how: ``balance`` repeats severe scans until there are as many as non-severe ones (never fewer than there are);
            a number repeats them by that factor, 1 or more; ``none`` leaves the list alone. Where the copies do not
            divide evenly, the seed chooses which scans get one more.
        seed: of that choice.

    Returns:
        The ids in the given order, repetitions side by side.

    Raises:
        ConfigError: if the factor is below 1.
    """
    severe = [i for i, severity in enumerate(severities) if severity == 1]
    copies = np.ones(len(scan_ids), dtype=np.int64)
    if severe and how != "none":
        wanted = sum(severity == 0 for severity in severities) if how == "balance" else _times(how, len(severe))
        each, rest = divmod(max(wanted, len(severe)), len(severe))
        copies[severe] = each
        copies[np.random.default_rng(seed).choice(severe, size=rest, replace=False)] += 1
    return [scan_id for scan_id, count in zip(scan_ids, copies, strict=True) for _ in range(count)]


def _times(factor: float | str, count: int) -> int:
    value = float(factor)
    if value < 1:
        raise ConfigError("Severe scans cannot be repeated less than once", found=f"factor {value:g}", expected=">= 1")
    return round(value * count)
