"""Whole-slice networks side by side: the same invented slices, the same steps, the same losses.

    python benchmarks/architectures.py --pool DIR --chests 300 --steps 2000 [--workers 16] [--device cuda] [--json FILE]

Rows are `chest_unet` of several widths and numbers of neighbours, and M²UNet's encoder and decoder (Table I of He et
al. 2020) on whole slices, with and without position (the slice's height and the pixel's place as channels). All see
each batch before the next is drawn. ``--pool`` is a folder of chests (`m2unet synthetic` leaves one in OUT/pool); those
after the first ``--chests`` are held out. Figures: mean lobe Dice on held-out slabs, and in slices that show all three
right lobes, where the middle lobe is hardest to tell. Digital phantoms: engineering evidence, never clinical.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from m2unet.anatomy import LOBE_CODES, RIGHT_CODES
from m2unet.config import ModelConfig, load_config
from m2unet.models.base import LOBES
from m2unet.models.chest_unet import ChestAnswer, ChestUNet
from m2unet.models.m2unet import M2UNet
from m2unet.phantom.randomised.pool import ChestPool
from m2unet.training.distributed import choose_device, device_name
from m2unet.training.invented import InventedTrainer, InventedTraining
from m2unet.training.invented_validation import VALIDATION_SEED, read_batch, validate
from m2unet.training.slabs import SlabBatch, SlabSource

LEAST_SHARE = 0.15
"""Of the right lung in a slice that shows all three lobes."""


class WholeSliceM2UNet(nn.Module):
    """M²UNet's lobe half on whole slices; it sees the middle slice alone, and tells neither height nor fissures.

    Args:
        position: with the slice's height and the pixel's row and column as channels.
    """

    stride = M2UNet.stride

    def __init__(self, position: bool) -> None:
        super().__init__()
        self.config = ModelConfig(name="m2unet", position=position)
        self.net = M2UNet(self.config, frozenset({LOBES}))

    def read(self, images: Tensor) -> ChestAnswer:
        """See :meth:`ChestUNet.read`."""
        count, channels, rows, columns = images.shape
        inputs = images[:, channels // 2 - 1 : channels // 2]  # the last channel is the height
        if self.config.position:
            y = torch.linspace(-1, 1, rows, device=images.device).view(1, 1, -1, 1).expand(count, 1, -1, columns)
            x = torch.linspace(-1, 1, columns, device=images.device).view(1, 1, 1, -1).expand(count, 1, rows, -1)
            inputs = torch.cat([inputs, images[:, -1:], y, x], dim=1)
        return ChestAnswer(self.net.segment(inputs), images.new_zeros(count, 2), torch.zeros_like(images[:, :1]))


@dataclass
class Row:
    """A network in training."""

    name: str
    trainer: InventedTrainer
    narrow: int
    """Neighbours on each side that it does not see."""
    seconds: float = 0.0

    def fit(self, batch: SlabBatch) -> SlabBatch:
        """The batch with as many neighbours as the network takes."""
        return batch if not self.narrow else replace(batch, images=batch.images[:, self.narrow : -self.narrow])


def networks(settings: InventedTraining, device: torch.device, width: int | None) -> tuple[list[Row], int]:
    """All rows, and the most neighbours that one of them sees; ``width`` makes all of them small."""
    makers: list[tuple[str, Callable[[], nn.Module], int]] = []
    sizes = [(32, 2), (32, 3), (48, 3)] if width is None else [(width, 1), (width, 2)]
    for channels, context in sizes:
        config = load_config("synthetic", [f"model.width={channels}", f"model.context={context}"]).model
        name = f"chest_unet, width {channels}, {context} neighbours"
        makers.append((name, lambda config=config: ChestUNet(config), context))  # type: ignore[misc]
    for position in (True, False):
        name = "M²UNet, position-aware" if position else "M²UNet, no position"
        makers.append((name, lambda position=position: WholeSliceM2UNet(position), 1))  # type: ignore[misc]
    most = max(context for *_, context in makers)
    rows = []
    for name, make, context in makers:
        torch.manual_seed(settings.seed)
        rows.append(Row(name, InventedTrainer(cast(ChestUNet, make()), settings, device), most - context))
    return rows, most


def train(rows: list[Row], source: SlabSource, settings: InventedTraining, device: torch.device) -> None:
    """Every network takes every step."""
    for number, drawn in enumerate(source.batches(range(settings.steps), settings.slabs, pin=device.type == "cuda"), 1):
        batch = drawn.to(device)
        for row in rows:
            started = time.perf_counter()
            figures = row.trainer.step(row.fit(batch))
            row.seconds += time.perf_counter() - started
            if number % 250 == 0:
                print(number, row.name, {k: round(v, 4) for k, v in figures.items()}, flush=True)


@torch.inference_mode()
def three_lobes(model: ChestUNet, batches: Iterable[SlabBatch]) -> dict[str, Any]:
    """Mean Dice of the right lobes in slices that show all three, heights given; which lung is taken as known."""
    found = []
    for batch in batches:
        scores = read_batch(model, batch.images, batch.heights).lobes[:, 1:4].float()
        codes = (scores.argmax(1) + 1).cpu().numpy()
        for said, truth in zip(codes, batch.labels.cpu().numpy(), strict=True):
            right = np.isin(truth, RIGHT_CODES)
            areas = np.array([np.count_nonzero(truth == code) for code in RIGHT_CODES])
            if right.any() and areas.min() >= LEAST_SHARE * areas.sum():
                common = [np.count_nonzero((said == code) & (truth == code)) for code in RIGHT_CODES]
                sizes = [np.count_nonzero((said == code) & right) for code in RIGHT_CODES] + areas
                found.append(2 * np.array(common) / sizes)
    names = [f"lobe {code}" for code in LOBE_CODES if code in RIGHT_CODES]
    means = np.mean(found, axis=0).round(4) if found else [None] * len(names)
    values = [None if value is None else float(value) for value in means]
    return {"slices": len(found), "dice": dict(zip(names, values, strict=True))}


def main() -> None:
    """Train all, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--chests", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--slabs", type=int, default=12)
    parser.add_argument("--validation", type=int, default=200, help="held-out slabs")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", type=int, metavar="WIDTH", help="small networks, to try the script")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device)
    config = load_config("synthetic")
    settings = InventedTraining(steps=options.steps, slabs=options.slabs, decay_from=0.5)
    rows, context = networks(settings, device, options.tiny)
    pool = ChestPool(options.pool, options.chests)
    source = SlabSource(pool, settings.seed, config.window, None, context, options.workers)
    train(rows, source, settings, device)
    source = replace(source, pool=ChestPool(options.pool, options.held_out, options.chests), seed=VALIDATION_SEED)
    held_out = [batch.to(device) for batch in source.batches(range(options.validation), 1)]
    found: dict[str, Any] = {
        "device": device_name(device),
        "steps": options.steps,
        "slabs": options.slabs,
        "chests": options.chests,
        "validation_slabs": options.validation,
        "rows": {},
    }
    for row in rows:
        model = row.trainer.averaged()
        batches = [row.fit(batch) for batch in held_out]
        figures = {k: None if v is None else round(v, 4) for k, v in validate(model, batches).items()}
        if isinstance(model, WholeSliceM2UNet):
            figures |= {"val_height_error": None, "val_fissure_auc": None}  # it tells neither
        found["rows"][row.name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(row.seconds, 1),
            **figures,
            "three_right_lobes": three_lobes(model, batches),
        }
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
