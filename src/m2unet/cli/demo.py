"""``m2unet demo``: the whole story on phantoms, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Overrides, say, writable


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", callback=writable, help="Folder of everything made.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    overrides: Overrides = None,
) -> None:
    """Make phantoms, train, evaluate on unseen patients, predict one scan, draw pictures."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.workflows.demo import run_demo
    from m2unet.workflows.scoring import figures_table

    result = run_demo(out, seed=seed, overrides=overrides or (), progress=TerminalProgress())
    summary = result.summary
    say()
    say(figures_table(result.evaluation.figures))
    say(f"Digital phantoms: engineering evidence, never clinical. {summary['seconds']:.0f} s in all.")
    say()
    say("Made:")
    say(f"  {out}/cohort/            the phantom cohort: scans, lobe and lesion masks, manifest.csv")
    say(f"  {out}/model/             the trained M²UNet (trained on phantoms; not for patients)")
    say(f"  {out}/evaluation/        results.md, predictions.csv (one row a scan), summary.json")
    say(f"  {out}/figures/           learning_curves.png, roc.png, lobes.png")
    say(f"  {result.prediction.folder}/  one unseen scan: result.json, lobe mask, montage.png")
    auc, dice = _number(summary["auc"]), _number(summary["mean_lobe_dice"])
    say(f"  {out}/summary.json       AUC {auc}, mean lobe Dice {dice}")
    say()
    say("Try next:")
    say(f"  m2unet predict YOUR_SCAN --model {out} --out results   a CT file or a DICOM folder")
    say("  m2unet check YOUR_SCAN                                 what is wrong with a scan, and how to mend it")
    say("  docs/your-own-cohort.md                                train on your own cohort")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
