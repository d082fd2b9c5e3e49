"""``m2unet followup``: one patient, or each patient of a manifest, over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import Device, LobeCodes, Out, code_system, failure_code, say


def followup(
    scans: Annotated[list[Path], typer.Argument(help="A manifest (.csv), or the scans of one patient.")],
    out: Out,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="A run folder: severity, and lobes not given [default: the lobe model shipped with m2unet].",
        ),
    ] = None,
    patient: Annotated[list[str] | None, typer.Option("--patient", help="Only this patient of the manifest.")] = None,
    date: Annotated[list[str] | None, typer.Option("--date", help="YYYY-MM-DD, once for each scan given.")] = None,
    lobes: Annotated[list[Path] | None, typer.Option("--lobes", help="Lobe mask, once for each scan given.")] = None,
    predict_lobes: Annotated[
        bool, typer.Option("--predict-lobes", help="Use the model's lobes even where masks are given.")
    ] = False,
    lobe_codes: LobeCodes = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random bags.")] = 0,
    device: Device = "auto",
) -> None:
    """Compare dated scans: change of each lobe with its error, plots, a verdict, a page. Finished scans are kept."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.errors import EXIT_OK, EXIT_SOME_FAILED, ConfigError
    from m2unet.inference.predictor import Predictor
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.case_names import UNEXPECTED
    from m2unet.workflows.followup import FollowupOptions, follow_patients
    from m2unet.workflows.followup_scans import given_patient, manifest_patients

    remarks: list[str] = []
    if len(scans) == 1 and scans[0].suffix.lower() == ".csv":
        if date or lobes:
            raise ConfigError("A manifest holds dates and lobes itself", found="--date or --lobes with a manifest")
        patients, remarks = manifest_patients(scans[0], patient or ())
    else:
        if patient:
            raise ConfigError("--patient chooses from a manifest", found="scans given one by one")
        patients = [given_patient(scans, date or (), lobes or ())]
    needed = model is not None or predict_lobes or any(one.lobes is None for each in patients for one in each.scans)
    predictor = Predictor.load(model, device=choose_device(device)) if needed else None
    options = FollowupOptions(predictor, predict_lobes, seed=seed, lobe_codes=code_system(lobe_codes or "auto"))
    for remark in remarks:
        say(f"left out: {remark}")
    unmeasured, incomplete = [], 0
    for outcome in follow_patients(patients, out, options, progress=TerminalProgress()):
        if outcome.found is None:
            say(f"{outcome.patient.name}: no comparison")
            unmeasured.append(
                "; ".join(sorted(outcome.failed.values(), key=lambda why: not why.startswith(UNEXPECTED)))
            )
        else:
            overall = outcome.found.overall
            say(f"{outcome.patient.name}: {overall.verdict or 'no verdict'}; {overall.reason}")
            incomplete += bool(outcome.failed)
        for name, reason in outcome.failed.items():
            say(f"  {name} failed: {reason}")
    say(f"{len(patients)} patient(s), in {out}. Research use only.")
    code = failure_code(unmeasured, len(patients)) or (EXIT_SOME_FAILED if incomplete else EXIT_OK)
    if code:
        raise typer.Exit(code)
