"""Global contrast pooling as a multi-instance pooling of its own, on the classical benchmarks.

Ten-fold cross-validation, five repeats, stratified by bag label. Four poolings share one small encoder, one optimiser
and one search: learning rate, dropout and number of epochs are chosen by three-fold cross-validation inside each
training part, never with the bags tested. Training is full-batch: every step sees every training bag.

Run ``python benchmarks/mil.py musk1.csv elephant.csv --out mil.json``; ``.mat`` files will do as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from m2unet.models.gated_mil import GatedAttention
from m2unet.models.norm import BatchNorm
from m2unet.models.pooling import GlobalContrastPooling

METHODS = ("gcp", "attention", "max", "mean")
HIDDEN, WIDTH, CONCEPTS = 64, 64, 64
EPOCHS = (15, 30, 45)
"""Numbers of epochs among which the inner folds choose; all are read off one training."""

PUBLISHED = {
    "musk1": "mi-Net 88.9, MI-Net 88.7, gated ABMIL 90.0",
    "elephant": "mi-Net 85.8, MI-Net 86.2, gated ABMIL 85.7",
}


# --- bags ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bags:
    """A multi-instance data set.

    Attributes:
        features: ``[M, d]`` float32, all instances, those of a bag next to each other.
        sizes: ``[B]`` number of instances of each bag.
        labels: ``[B]`` 0 or 1.
    """

    features: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: np.ndarray) -> Bags:
        """Some of the bags, in the order asked for."""
        ends = np.cumsum(self.sizes)
        rows = np.concatenate([np.arange(ends[i] - self.sizes[i], ends[i]) for i in which])
        return Bags(self.features[rows], self.sizes[which], self.labels[which])


def read_bags(path: str | Path) -> Bags:
    """Read a CSV (bag label, bag number, features; no header) or a MATLAB file in either of the two usual layouts.

    Raises:
        ValueError: another layout, or values that are no numbers.
    """
    path = Path(path)
    labels, numbers, features = _mat(path) if path.suffix.lower() == ".mat" else _csv(path)
    if not np.isfinite(features).all():
        raise ValueError(f"{path.name} holds features that are no numbers")
    names, bag = np.unique(numbers, return_inverse=True)
    order = np.argsort(bag, kind="stable")
    of_bag = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(of_bag, bag, (labels > 0).astype(np.int64))  # a bag is positive if any instance is
    if len(np.unique(of_bag)) < 2:
        raise ValueError(f"{path.name} holds bags of one label only")
    return Bags(features[order].astype(np.float32), np.bincount(bag), of_bag)


def _csv(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    if table.shape[1] < 3:
        raise ValueError(f"{path.name}: expected bag label, bag number and features, found {table.shape[1]} columns")
    return table[:, 0], table[:, 1], table[:, 2:]


def _mat(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``features, labels, bag_ids`` (Andrews et al.), or the struct ``x`` of PRTools with ``nlab`` and ``milbag``."""
    from scipy.io import loadmat

    held = loadmat(path)
    if "x" in held:
        x = held["x"][0, 0]
        bags = x["ident"]["milbag"][0, 0] if x["ident"].dtype.names else x["ident"]
        bags = bags[0, 0] if bags.dtype == object and bags.size == 1 else bags
        flat = np.asarray([str(np.squeeze(name)) for name in np.ravel(bags)])
        return x["nlab"].ravel().astype(float) - 1, flat, np.asarray(x["data"], dtype=float)
    if {"features", "labels", "bag_ids"} <= held.keys():
        dense = [
            held[k].toarray() if hasattr(held[k], "toarray") else held[k] for k in ("labels", "bag_ids", "features")
        ]
        return dense[0].ravel(), dense[1].ravel(), np.asarray(dense[2], dtype=float)
    raise ValueError(f"{path.name}: expected x, or features, labels and bag_ids; found {sorted(held)}")


# --- networks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What the inner folds choose."""

    lr: float
    dropout: float
    epochs: int = EPOCHS[-1]


GRID = (Settings(0.003, 0.0), Settings(0.01, 0.5))
"""Gentle without dropout, or fast with it; each also read off at three numbers of epochs."""


@dataclass(frozen=True)
class Padded:
    """Bags as tensors: ``[M, d]`` real instances, their places in ``[B, K]``, and bag labels ``[B]``."""

    instances: Tensor
    mask: Tensor
    labels: Tensor


class BagNetwork(nn.Module):
    """Two fully connected layers for each instance, one pooling, one linear layer for the bag's logit."""

    def __init__(self, features: int, pooling: str, dropout: float, *, norm: str = "batch", relu: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(features, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, WIDTH), nn.ReLU()
        )
        self.pooling = pooling
        self.relu = relu
        if pooling == "gcp":
            self.gcp = GlobalContrastPooling(WIDTH, CONCEPTS, norm=norm)  # type: ignore[arg-type]
        if pooling == "attention":
            self.attention = GatedAttention(WIDTH, WIDTH)
        self.classifier = nn.Linear(CONCEPTS if pooling == "gcp" else WIDTH, 1)

    def forward(self, bags: Padded) -> Tensor:
        """Logits ``[B]``."""
        real = self.encoder(bags.instances)
        return self.classifier(self.pool(real, bags.mask)).squeeze(1)

    def pool(self, real: Tensor, mask: Tensor) -> Tensor:
        """Bag vectors from ``[M, WIDTH]`` real instances; what needs no padding is done without, for speed."""
        of_bag = mask.nonzero()[:, 0]
        if self.pooling == "attention":  # GatedAttention on the real instances only
            gated = torch.tanh(self.attention.content(real)) * torch.sigmoid(self.attention.gate(real))
            scores = self.attention.weight(gated)[:, 0]
            weights = real.new_full(mask.shape, -torch.inf).index_put((mask,), scores).softmax(1)[mask]
            return real.new_zeros((len(mask), WIDTH)).index_add(0, of_bag, weights[:, None] * real)
        if self.pooling == "mean":
            return real.new_zeros((len(mask), WIDTH)).index_add(0, of_bag, real) / mask.sum(1, keepdim=True)
        padded = real.new_zeros((*mask.shape, WIDTH)).index_put((mask,), real)
        if self.pooling == "gcp":
            values = self.gcp(padded, mask).values
            return values.relu() if self.relu else values
        return padded.amax(1)  # never negative after the ReLU, so that zeros of padding do not matter


def to_tensors(bags: Bags, mean: np.ndarray, sd: np.ndarray) -> Padded:
    """Standardise with the training bags' mean and deviation, and lay out the mask."""
    scaled = np.clip((bags.features - mean) / sd, -5, 5).astype(np.float32)
    mask = np.arange(bags.sizes.max())[None] < bags.sizes[:, None]
    return Padded(torch.from_numpy(scaled), torch.from_numpy(mask), torch.from_numpy(bags.labels).float())


def moments(bags: Bags) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over all instances; 1 where a feature is constant."""
    sd = bags.features.std(0)
    return bags.features.mean(0), np.where(sd > 1e-6, sd, 1)


def train(
    parts: tuple[Padded, Padded], method: str, settings: Settings, seed: int, read_at: Sequence[int], **options: Any
) -> Iterator[Tensor]:
    """Train on the first part and yield the logits of the second after each number of epochs in ``read_at``."""
    learn, test = parts
    torch.manual_seed(seed)
    model = BagNetwork(learn.instances.shape[1], method, settings.dropout, **options)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.01, fused=True)
    for epoch in range(1, max(read_at) + 1):
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(model(learn), learn.labels).backward()
        optimiser.step()
        if epoch in read_at:
            yield evaluate(model, learn, test)


@torch.no_grad()
def evaluate(model: BagNetwork, learn: Padded, test: Padded) -> Tensor:
    """Logits of the test bags, with batch statistics of all training bags under the present weights."""
    model.eval()
    for layer in model.modules():
        if isinstance(layer, BatchNorm):
            momentum, layer.momentum = layer.momentum, 1.0
            layer.train()
            model(learn)
            layer.eval()
            layer.momentum = momentum
    logits = model(test)
    model.train()
    return logits


# --- cross-validation ------------------------------------------------------------------------------------------------


def folds(labels: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds: indices to learn from and to test on."""
    yield from StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)


def choose(bags: Bags, method: str, seed: int, **options: Any) -> Settings:
    """Settings with the best inner accuracy; the lower inner loss decides between equals."""
    right: dict[Settings, float] = {}
    loss: dict[Settings, float] = {}
    for learn_ids, test_ids in folds(bags.labels, 3, seed):
        learn, test = bags.take(learn_ids), bags.take(test_ids)
        scale = moments(learn)
        parts = (to_tensors(learn, *scale), to_tensors(test, *scale))
        for settings in GRID:
            for epochs, logits in zip(EPOCHS, train(parts, method, settings, seed, EPOCHS, **options), strict=True):
                key = Settings(settings.lr, settings.dropout, epochs)
                hits = ((logits > 0) == (parts[1].labels > 0)).sum()
                cost = F.binary_cross_entropy_with_logits(logits, parts[1].labels, reduction="sum")
                right[key] = right.get(key, 0.0) + float(hits)
                loss[key] = loss.get(key, 0.0) + float(cost)
    return max(right, key=lambda key: (right[key], -loss[key]))


def cross_validate(
    bags: Bags, method: str, seed: int, count: int, **options: Any
) -> tuple[list[float], list[Settings]]:
    """Accuracy of each outer fold, and what was chosen there."""
    accuracies, chosen = [], []
    for number, (learn_ids, test_ids) in enumerate(folds(bags.labels, count, seed)):
        learn, test = bags.take(learn_ids), bags.take(test_ids)
        settings = choose(learn, method, 1000 * seed + number, **options)
        scale = moments(learn)
        parts = (to_tensors(learn, *scale), to_tensors(test, *scale))
        (logits,) = train(parts, method, settings, 1000 * seed + number, [settings.epochs], **options)
        accuracies.append(float(((logits > 0) == (parts[1].labels > 0)).float().mean()))
        chosen.append(settings)
    return accuracies, chosen


@dataclass(frozen=True)
class Run:
    """One repeat of one method on one data set: accuracy and choice of each outer fold, seconds of one core."""

    data: str
    method: str
    seed: int
    accuracies: list[float]
    chosen: list[dict[str, float]]
    seconds: float


def run(bags: Bags, data: str, method: str, seed: int, count: int, **options: Any) -> Run:
    """Cross-validate once."""
    started = time.process_time()
    accuracies, chosen = cross_validate(bags, method, seed, count, **options)
    return Run(data, method, seed, accuracies, [asdict(c) for c in chosen], time.process_time() - started)


def table(runs: Sequence[Run]) -> str:
    """Markdown: mean accuracy, deviation between repeats, deviation between single folds."""
    lines = ["| data | pooling | repeats | accuracy % ± sd of repeats | sd of single folds | seconds | published % |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for data, method in dict.fromkeys((run.data, run.method) for run in runs):
        mine = [run for run in runs if (run.data, run.method) == (data, method)]
        means = 100 * np.asarray([np.mean(run.accuracies) for run in mine])
        single = 100 * np.ravel([run.accuracies for run in mine])
        between = f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else ""
        lines.append(
            f"| {data} | {method} | {len(mine)} | {means.mean():.1f}{between} | {single.std(ddof=1):.1f} "
            f"| {sum(run.seconds for run in mine):.0f} | {PUBLISHED.get(data, '')} |"
        )
    return "\n".join(lines)


def resumed(path: Path | None, settings: dict[str, Any]) -> list[Run]:
    """Runs that an earlier call with the same settings finished.

    Raises:
        ValueError: if the file was written with other settings.
    """
    if path is None or not path.exists():
        return []
    held = json.loads(path.read_text(encoding="utf-8"))
    if held["settings"] != settings:
        raise ValueError(f"{path} was written with other settings: {held['settings']}")
    return [Run(**values) for values in held["runs"]]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="+", help="CSV or .mat files: Musk1, Musk2, Fox, Tiger, Elephant")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gcp-norm", choices=("batch", "bias", "none"), default="batch")
    parser.add_argument("--no-relu", action="store_true", help="no ReLU between GCP and the classifier")
    parser.add_argument("--out", type=Path, help="JSON of every accuracy and choice; a second call goes on with it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    extra = {"norm": options.gcp_norm, "relu": not options.no_relu}
    settings = {"folds": options.folds, "grid": [asdict(g) for g in GRID], "epochs": list(EPOCHS), "gcp": extra}
    runs = resumed(options.out, settings)
    finished = {(run.data, run.method, run.seed) for run in runs}
    sets = {path.stem.lower(): read_bags(path) for path in options.data}
    for seed in range(options.seed, options.seed + options.repeats):
        for (data, bags), method in itertools.product(sets.items(), options.methods):
            if (data, method, seed) in finished:
                continue
            runs.append(run(bags, data, method, seed, options.folds, **(extra if method == "gcp" else {})))
            print(f"{data} {method} seed {seed}: {100 * np.mean(runs[-1].accuracies):.1f} %", flush=True)
            if options.out:
                held = {"settings": settings, "runs": [asdict(done) for done in runs]}
                options.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    print(table(sorted(runs, key=lambda run: (run.data, METHODS.index(run.method), run.seed))))
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
