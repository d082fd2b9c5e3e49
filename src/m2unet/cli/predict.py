"""``m2unet predict``: lobes and severity of new scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2unet.cli.common import Accept, Device, Engine, LobeCodes, Out, Series, code_system, failure_code, say

if TYPE_CHECKING:
    from m2unet.workflows.case import CaseOptions
    from m2unet.workflows.cluster import ClusterJob
    from m2unet.workflows.predict import Case, CaseOutcome


def predict(
    scans: Annotated[list[Path], typer.Argument(help="CT files, DICOM folders, or a manifest (.csv).")],
    out: Out,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="A run folder, e.g. runs/demo [default: the lobe model shipped with m2unet]."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Name of the case, once for each scan, in order; a manifest names its own."),
    ] = None,
    series: Series = None,
    mask_format: Annotated[
        str | None, typer.Option("--mask-format", help=".nii.gz, .mha or .nrrd [default: the input's own].")
    ] = None,
    montage: Annotated[bool, typer.Option(help="Draw a montage of each scan.")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html and the interactive view.")] = True,
    identify: Annotated[
        bool, typer.Option("--identify", help="Show the DICOM header's patient name, ID and dates in the report.")
    ] = False,
    dicom: Annotated[bool, typer.Option(help="For DICOM inputs, write DICOM SEG and SR.")] = True,
    explain: Annotated[bool, typer.Option(help="Write a heat map of where the severity comes from.")] = True,
    lobes: Annotated[
        Path | None, typer.Option("--lobes", help="For tang and yang: the scan's lobe mask (a manifest names its own).")
    ] = None,
    lobe_codes: LobeCodes = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A step or a cut, e.g. postprocess.fill_holes=false, opacity.vote_mm=4."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random bags.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict finished cases again.")] = False,
    accept: Accept = None,
    device: Device = "auto",
    engine: Engine = "auto",
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Dask scheduler (tcp://head:8786) or slurm; the model and all paths shared."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Jobs to ask SLURM for, with --cluster slurm.")] = 1,
) -> None:
    """Predict scans: lobes, opacities, severity and a report, one folder a case. Finished cases are skipped."""
    from m2unet.ct.findings import check_accept
    from m2unet.errors import ConfigError
    from m2unet.inference.predictor import packaged_model
    from m2unet.workflows.case import CaseOptions
    from m2unet.workflows.case_settings import case_settings
    from m2unet.workflows.cluster import ClusterJob
    from m2unet.workflows.dicom import export_dicom

    if mask_format not in (None, ".nii.gz", ".nii", ".mha", ".nrrd"):
        raise ConfigError("The mask's format is not known", found=mask_format, expected=".nii.gz, .nii, .mha or .nrrd")
    cases = _cases(scans, lobes, lobe_codes, names=name or (), series=series)
    exporters = (export_dicom,) if dicom else ()
    steps, cuts = case_settings(overrides or [])
    options = CaseOptions(
        mask_format,
        montage,
        seed,
        overwrite,
        report,
        identify,
        steps,
        cuts,
        exporters=exporters,
        explain=explain,
        accept=tuple(sorted(check_accept(accept or ()))),
    )
    folder = packaged_model() if model is None else model
    if cluster is None:
        outcomes = _predict_here(folder, cases, out, options, device, engine)
    else:
        job = ClusterJob(folder.absolute(), out.absolute(), cluster, workers, engine, options)
        outcomes = _predict_there(job, cases)
    _tell(outcomes, out)


def _cases(
    scans: list[Path],
    lobes: Path | None,
    lobe_codes: str | None,
    *,
    names: Sequence[str] = (),
    series: str | None = None,
) -> list[Case]:
    from m2unet.errors import ConfigError
    from m2unet.workflows.predict import find_cases

    cases = find_cases(scans, names, series=series)
    if lobes is not None:
        if len(cases) != 1:
            raise ConfigError("--lobes is the mask of one scan", found=f"{len(cases)} scans", expected="one")
        cases = [replace(cases[0], mask=lobes)]
    return [replace(case, codes=code_system(lobe_codes or "auto")) for case in cases]


def _predict_here(
    folder: Path, cases: list[Case], out: Path, options: CaseOptions, device: str, engine: str
) -> Iterator[CaseOutcome]:
    from m2unet.cli.progress import TerminalProgress
    from m2unet.training.distributed import choose_device
    from m2unet.workflows.methods import load_method
    from m2unet.workflows.predict import predict_cases

    predictor = load_method(folder, device=str(choose_device(device)), engine=engine)
    return predict_cases(predictor, cases, out, options, progress=TerminalProgress())


def _predict_there(job: ClusterJob, cases: list[Case]) -> Iterator[CaseOutcome]:
    from m2unet.cli.progress import TerminalProgress
    from m2unet.workflows.cluster import predict_on_cluster

    return predict_on_cluster(job, cases, progress=TerminalProgress())


def _tell(outcomes: Iterator[CaseOutcome], out: Path) -> None:
    """Say what became of each case when it is done; exit with 1 if some failed, 2 if all did because of their scans."""
    errors: list[str | None] = []
    for outcome in outcomes:
        say(f"{outcome.name}: {_line(outcome)}")
        errors.append(outcome.error)
    failed = [error for error in errors if error is not None]
    say(f"{len(errors) - len(failed)} of {len(errors)} scans predicted, in {out}. Research use only.")
    say("sources.csv lists the path, study and series of each case: keep it to yourself.")
    if failed:
        raise typer.Exit(failure_code(failed, len(errors)))


def _line(outcome: CaseOutcome) -> str:
    renamed = "named so because its own name resembles what the header says of the patient" if outcome.renamed else ""
    if outcome.result is None:
        return "; ".join(part for part in (f"failed: {outcome.error}", renamed) if part)
    severity = outcome.result.severity
    said = "no severity"
    if severity.probability is not None:
        said = f"{severity.answer or 'severity'} ({severity.probability:.2f} ± {severity.spread:.2f})"
    volumes = ", ".join(
        f"{q.region} {q.volume_ml:.0f} ml" for q in outcome.result.lobes.volumes if q.volume_ml is not None
    )
    told = (said, volumes, "skipped" if outcome.skipped else "", renamed)
    warned = [f"  {f.code}: {f.found}. To mend: {f.mend}." for f in outcome.result.findings if f.level == "warning"]
    return "\n".join(["; ".join(part for part in told if part), *warned])
