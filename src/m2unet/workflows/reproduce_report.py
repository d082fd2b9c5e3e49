"""Everything a reproduction writes: tables, paired tests, figures, one page."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import SEVERITY_OF_GRADE, ManifestRow
from m2unet.cohort.masks import read_lobe_mask
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.evaluation.classification import area_under_curve, roc_points
from m2unet.files import write_json, write_text
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.models.methods import METHODS
from m2unet.paper import differences
from m2unet.paper.build import architecture_table, comparisons, method_table
from m2unet.paper.outcome import Outcome, Setting
from m2unet.paper.page import Section, figure_section, render_page, table_section
from m2unet.paper.plan import FIGURE_METHODS, Experiment, tables
from m2unet.paper.published import published
from m2unet.paper.render import Rendered, to_csv, to_latex, to_markdown
from m2unet.report.figures import Panel, RocCurve, save_panels, save_roc
from m2unet.workflows.reproduce import QUICK_SCANS, QUICK_SETTINGS, Finished, Reproduction, job_data
from m2unet.workflows.run_folder import versions

SCHEMA = "m2unet.reproduction/1"
FIGURE_ENDINGS = (".png", ".svg")
PAGE = "index.html"
VARIETY = 4
"""Scans in Figure 2."""


def write_report(job: Reproduction, found: Finished) -> Path:
    """Write whatever is wanted and can be had so far.

    Returns:
        The page.
    """
    setting = describe(job, found)
    sections: list[Section] = []
    markdown = [f"# {published().source}: the experiments\n", setting.line() + "\n"]
    plans = tables(job.config())
    for name in job.names:
        if name in FIGURE_METHODS:
            continue
        table = architecture_table() if name == "table1" else method_table(plans[name], found.outcomes, setting)
        tests = [] if name == "table1" else comparisons(plans[name], found.outcomes, seed=job.seed)
        _write_table(job.out, table, tests)
        markdown += [to_markdown(table), differences.to_markdown(tests)]
        sections.append(table_section(table, tests))
    sections += _figures(job, found, setting)
    write_text(job.out / "tables.md", "\n".join(part for part in markdown if part))
    write_text(job.out / "seconds.csv", _seconds(found.outcomes))
    write_json(job.out / "reproduction.json", _document(job, found, setting))
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    footer = f"Research use only. Made with {about}. After ±: sample standard deviation over folds."
    write_text(job.out / PAGE, render_page(sections, setting, footer))
    return job.out / PAGE


def describe(job: Reproduction, found: Finished) -> Setting:
    """On what the figures rest."""
    counts = sorted({len(outcome.folds) for outcome in found.outcomes.values()})
    folds = "no fold" if not counts else " to ".join(str(c) for c in dict.fromkeys((counts[0], counts[-1])))
    how = f"{folds} of {found.folds} folds by patient, preset {Path(job.preset).name}, seed {job.seed}"
    if job.overrides:
        how += f", with {', '.join(job.overrides)}"
    warnings = []
    if job.quick:
        changes = ", ".join(QUICK_SETTINGS)
        warnings.append(f"Quick run: one fold of about {QUICK_SCANS} scans, {changes}. Its figures mean nothing.")
    elif counts and counts[0] < found.folds:
        warnings.append(f"Not all folds are finished: each figure is over those that are ({folds} of {found.folds}).")
    config = job.config()
    if config.preset != "paper":
        size = f"width {config.model.width}, bags of {config.bag.size} patches of {config.bag.patch} pixels"
        epochs = f"{config.train.epochs} epochs"
        warnings.append(f"Every network is trained at the preset's reduced size: {size}, {epochs}.")
    warnings += [f"Could not be run: {failure}" for failure in found.failures]
    return Setting(job_data(job), how, tuple(warnings))


def _write_table(out: Path, table: Rendered, tests: list[differences.Comparison]) -> None:
    below = differences.to_markdown(tests)
    write_text(out / f"{table.name}.csv", to_csv(table))
    write_text(out / f"{table.name}.md", to_markdown(table) + (f"\n{below}" if below else ""))
    write_text(out / f"{table.name}.tex", to_latex(table))
    if tests:
        write_text(out / f"{table.name}_tests.csv", differences.to_csv(tests))


def _seconds(outcomes: Mapping[str, Outcome]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["experiment", "folds", "processor_seconds_a_fold"])
    for key, outcome in outcomes.items():
        writer.writerow([key, len(outcome.folds), "" if outcome.seconds is None else f"{outcome.seconds:.0f}"])
    return text.getvalue()


def _document(job: Reproduction, found: Finished, setting: Setting) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "paper": published().source,
        "data": setting.data,
        "how": setting.how,
        "warnings": list(setting.warnings),
        "seed": job.seed,
        "preset": Path(job.preset).name,
        "overrides": list(job.overrides),
        "quick": job.quick,
        "versions": versions(),
        "experiments": {
            key: {
                "folds": {str(fold): dict(figures) for fold, figures in outcome.folds.items()},
                "size_mib": outcome.size_mib,
                "full_size_mib": outcome.full_size_mib,
                "processor_seconds_a_fold": outcome.seconds,
            }
            for key, outcome in found.outcomes.items()
        },
    }


# --- figures ---------------------------------------------------------------------------------------------------------


def _figures(job: Reproduction, found: Finished, setting: Setting) -> list[Section]:
    makers: dict[str, Callable[[Reproduction, Finished, list[Path], str], str | None]] = {
        "figure2": _variety,
        "figure5": _masks,
        "figure6": _curves,
    }
    sections = []
    for name in (n for n in job.names if n in makers):
        paths = [job.out / f"{name}{ending}" for ending in FIGURE_ENDINGS]
        note = makers[name](job, found, paths, setting.data)
        if note is not None:
            sections.append(figure_section(published().figures[name], paths[0].read_bytes(), (note, setting.line())))
    return sections


def _variety(job: Reproduction, found: Finished, paths: list[Path], footer: str) -> str | None:
    order: dict[str | None, int] = {name: place for place, name in enumerate(SEVERITY_OF_GRADE)}
    rows = sorted(job.cohort.rows, key=lambda r: (-1 if r.severity is None else r.severity, order.get(r.grade, 0)))
    places = np.unique(np.linspace(0, len(rows) - 1, VARIETY).round().astype(int))
    panels = [_three_views(rows[place]) for place in places]
    for path in paths:
        save_panels(path, panels, title="Axial, coronal, sagittal", footer=footer)
    return f"{len(panels)} scans from non-severe to severe; middle slices, the sagittal one through the right half."


def _three_views(row: ManifestRow) -> list[Panel]:
    volume = read_scan(row.image, accept=row.accept)
    z, y, x = (int(share * size) for share, size in zip((0.5, 0.5, 0.35), volume.shape, strict=True))
    dz, dy, dx = volume.spacing_mm
    severity = {0: "non-severe", 1: "severe", None: "severity unknown"}[row.severity]
    title = f"{row.scan_id}, {row.grade or severity}, {volume.shape[0]} slices of {dz:.3g} mm"
    return [
        Panel(title, volume.array[z], None, dy / dx),
        Panel("coronal", volume.array[::-1, y], None, dz / dx),
        Panel("sagittal", volume.array[::-1, :, x], None, dz / dy),
    ]


def _masks(job: Reproduction, found: Finished, paths: list[Path], footer: str) -> str | None:
    methods = FIGURE_METHODS["figure5"]
    if any(name not in found.outcomes for name in methods):
        return None
    fold = min(set.intersection(*(set(found.outcomes[name].folds) for name in methods)), default=None)
    if fold is None:
        return None
    predictors = {
        name: Predictor.load(job.run_folder(Experiment(name), fold).path, device=job.device) for name in methods
    }
    chosen = _worst_median_best(found.outcomes["m2unet"], fold)
    codes = job.lobe_codes or "auto"
    panels = [_lobe_panels(job.cohort.by_id(scan_id), predictors, found, fold, codes) for scan_id in chosen]
    if not panels:
        return None
    for path in paths:
        save_panels(path, panels, title="Scan, truth, and three methods", footer=footer)
    return "The unseen scans of one fold in which M²UNet is worst, median and best; mean lobe Dice above each."


def _worst_median_best(outcome: Outcome, fold: int) -> list[str]:
    scored = [(s.overlap.get("dsc"), s.scan_id) for s in outcome.scans if s.fold == fold]
    order = sorted((dsc, scan_id) for dsc, scan_id in scored if dsc is not None)
    return [order[place][1] for place in sorted({0, len(order) // 2, len(order) - 1})] if order else []


def _lobe_panels(
    row: ManifestRow, predictors: Mapping[str, Predictor], found: Finished, fold: int, codes: CodeSystem
) -> list[Panel]:
    volume: Volume = read_scan(row.image, accept=row.accept)
    assert row.lobes is not None
    truth = read_lobe_mask(row.lobes, volume, codes)
    area = (truth > 0).sum(axis=(1, 2))
    z = int(np.searchsorted(np.cumsum(area), area.sum() / 2))
    aspect = volume.spacing_mm[1] / volume.spacing_mm[2]
    panels = [Panel(row.scan_id, volume.array[z], None, aspect), Panel("truth", volume.array[z], truth[z], aspect)]
    for name, predictor in predictors.items():
        lobes = predictor.predict(volume, severity=False).lobes
        assert lobes is not None
        tidied = postprocess_lobes(lobes, volume.voxel_ml).mask
        tested = {s.scan_id: s for s in found.outcomes[name].scans if s.fold == fold}
        dsc = tested[row.scan_id].overlap.get("dsc")
        label = METHODS[name].label + ("" if dsc is None else f", {dsc:.3f}")
        panels.append(Panel(label, volume.array[z], tidied[z], aspect))
    return panels


def _curves(job: Reproduction, found: Finished, paths: list[Path], footer: str) -> str | None:
    there = [name for name in FIGURE_METHODS["figure6"] if name in found.outcomes]
    folds = [set(found.outcomes[name].folds) for name in there]
    fold = min(set.intersection(*folds), default=None) if folds else None
    if fold is None:
        return None
    curves, scans = [], 0
    for name in there:
        tested = [s for s in found.outcomes[name].scans if s.fold == fold]
        known = [(s.severity, s.probability) for s in tested if s.severity is not None and s.probability is not None]
        if not known:
            continue
        truth, probability = [k[0] for k in known], [k[1] for k in known]
        points, area = roc_points(truth, probability), area_under_curve(truth, probability)
        if points is not None and area is not None:
            label = f"{METHODS[name].label}, AUC {area:.3f}"
            rates = points.false_positive_rate.tolist(), points.true_positive_rate.tolist()
            curves.append(RocCurve(label, *rates))
            scans = len(known)
    if not curves:
        return None
    for path in paths:
        save_roc(path, curves, footer=textwrap.fill(footer, 68))
    return f"Fold {fold + 1}, {scans} unseen scans."
