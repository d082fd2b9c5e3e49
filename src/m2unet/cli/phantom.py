"""``m2unet phantom``: a cohort of digital chests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import say


class SizeChoice(StrEnum):
    """How large the scans are."""

    small = "small"
    paper = "paper"


class FormatChoice(StrEnum):
    """How the pictures are written."""

    nifti = "nifti"
    dicom = "dicom"


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    scans: Annotated[int, typer.Option("--scans", min=1, help="Number of scans.")] = 666,
    patients: Annotated[
        int | None,
        typer.Option("--patients", min=1, help="Number of patients [default: the paper's 242 to 666 scans]."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides everything.")] = 0,
    size: Annotated[
        SizeChoice,
        typer.Option("--size", help="small: 160 x 160, at most 40 slices; paper: 512-666, up to 732 slices."),
    ] = SizeChoice.small,
    severe: Annotated[
        float | None, typer.Option("--severe", min=0.0, max=1.0, help="Share of severe patients [default: 51 of 242].")
    ] = None,
    lobe_masks: Annotated[
        int | None, typer.Option("--lobe-masks", min=0, help="Scans with a lobe mask [default: all].")
    ] = None,
    course: Annotated[
        int | None,
        typer.Option(
            "--course", min=2, max=9, help="Follow each patient over so many dated scans: rise, peak, resolution."
        ),
    ] = None,
    format_: Annotated[FormatChoice, typer.Option("--format", help="nifti or dicom.")] = FormatChoice.nifti,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; the files do not depend on it.")] = 2,
) -> None:
    """Make synthetic chest CTs with lobe masks, lesion masks, labels and a manifest; nothing is downloaded."""
    from m2unet.cli.progress import TerminalProgress
    from m2unet.phantom.cohort import PAPER_PATIENTS, PAPER_SEVERE, CohortConfig, plan_cohort
    from m2unet.phantom.course import CourseConfig, plan_course
    from m2unet.phantom.writer import write_cohort

    if course is None:
        config = CohortConfig(
            size=size.value,
            scans=scans,
            patients=patients,
            severe_fraction=PAPER_SEVERE / PAPER_PATIENTS if severe is None else severe,
            lobe_masks="all" if lobe_masks is None else lobe_masks,
        )
        plan, following = plan_cohort(config, seed), f"m2unet train {out}/manifest.csv --out runs/phantom --preset demo"
    else:
        courses = CourseConfig(size.value, patients or 12, course, 0.5 if severe is None else severe)
        config, following = courses.cohort, f"m2unet followup {out}/manifest.csv --out runs/followup"
        plan = plan_course(courses, seed)
    with TerminalProgress().stage("Making phantoms") as step:
        write_cohort(plan, out, format_.value, workers, step)
    say(f"{config.scans} synthetic scans of {config.patient_count} patients ({config.severe_count} severe) in {out}.")
    say(f"Next: {following}")
