"""``m2unet collect``: the table and the page of all cases in a folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m2unet.cli.common import say


def collect(
    folder: Annotated[Path, typer.Argument(help="A folder that `m2unet predict` wrote cases to.")],
) -> None:
    """Make cohort.csv, cohort.html and sources.csv anew from the cases in a folder, e.g. after many cluster jobs."""
    from m2unet.workflows.collect import collect_results

    found = collect_results(folder)
    failed = sum(case.document is None for case in found.cases)
    say(f"{len(found.cases)} cases, {failed} of them failed. Written: {', '.join(map(str, found.files))}.")
    say("sources.csv lists the path, study and series of each case: keep it to yourself. Research use only.")
