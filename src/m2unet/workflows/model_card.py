"""Gather what a run folder knows of its model into ``MODEL_CARD.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from m2unet.cohort.manifest import ManifestRow
from m2unet.config import load_config
from m2unet.files import write_text
from m2unet.inference.predictor import find_model
from m2unet.report.model_card import render_model_card
from m2unet.workflows.card_facts import data_facts, described_rows, method_facts, result_facts
from m2unet.workflows.run_folder import RunFolder, read_json

CARD_FILE = "MODEL_CARD.md"
SAME_COHORT = "the test scans are of the same cohort and were prepared in the same way"


def write_model_card(run: Path, rows: Sequence[ManifestRow] = (), evaluation: Path | None = None) -> Path | None:
    """Write the card of a run folder.

    Args:
        run: the run folder, with a finished model.
        rows: manifest rows of its scans, for their characteristics.
        evaluation: a ``summary.json`` of its test scans, if there is one.

    Returns:
        The file; None for a folder that is no run folder.
    """
    folder = _run_of(run)
    if folder is None:
        return None
    facts: dict[str, str] = {}
    if evaluation is not None and evaluation.is_file():
        facts = {**result_facts(read_json(evaluation)), "evaluation": SAME_COHORT}
    return _write(folder, rows, facts, folder.path)


def write_evaluation_card(run: Path, tested: Sequence[ManifestRow], out: Path) -> Path | None:
    """Write a card with what an evaluation found beside its results; the model's own card stays as it is.

    Args:
        run: the model's run folder, or its model folder.
        tested: the scans that were evaluated.
        out: the evaluation's folder, with ``summary.json``.

    Returns:
        The file; None where the model lies in no run folder.
    """
    folder = _run_of(run)
    if folder is None:
        return None
    own = set(read_json(folder.split_file).get("test", ()))
    if all(row.scan_id in own for row in tested):
        return _write(folder, tested, {**result_facts(read_json(out / "summary.json")), "evaluation": SAME_COHORT}, out)
    patients = len({row.patient_id for row in tested})
    facts = {
        **result_facts(read_json(out / "summary.json"), external=True),
        "evaluation": "scans of another cohort; differences of setting and eligibility are yours to say",
        "compared": f"evaluated: {len(tested)} scans of {patients} patients, {described_rows(tested)}; the training "
        "scans stand in the model's own card",
    }
    return _write(folder, (), facts, out)


def write_crossval_card(out: Path, runs: Sequence[Path], rows: Sequence[ManifestRow]) -> Path | None:
    """Write the card of a cross-validation: the method of its first run, the figures of all.

    Args:
        out: the folder of the cross-validation, with ``summary.json``.
        runs: its finished run folders, at least one.
        rows: of the cohort.
    """
    folder = _run_of(runs[0])
    if folder is None:
        return None
    patients = len({row.patient_id for row in rows})
    facts = {
        **result_facts(read_json(out / "summary.json")),
        "evaluation": SAME_COHORT,
        "sample": f"{len(rows)} scans of {patients} patients; of each fold's parts see its own card",
        "size": f"{len(rows)} scans of {patients} patients; why so many is yours to say",
        "characteristics": described_rows(rows),
        "specification": f"{len(runs)} models, one a fold: " + ", ".join(f"{run.name}/model" for run in runs),
        "output": "probability of severe; each fold has a calibration and a threshold of its own, see its own card",
    }
    return _write(folder, rows, facts, out)


def _run_of(run: Path) -> RunFolder | None:
    """The run folder itself, or the one a model folder lies in."""
    for path in (run, run.parent):
        folder = RunFolder(path)
        if folder.config_file.is_file() and folder.split_file.is_file():
            return folder
    return None


def _write(folder: RunFolder, rows: Sequence[ManifestRow], more: Mapping[str, str], out: Path) -> Path:
    config = load_config(folder.config_file)
    card = read_json(find_model(folder.path) / "model.json")
    facts = {**data_facts(card, read_json(folder.split_file), rows), **method_facts(config, card), **more}
    of_phantoms = "phantom" in str(card.get("trained_on", "")).lower()
    known = {name: text for name, text in facts.items() if text}
    write_text(out / CARD_FILE, render_model_card(config.model.name, known, of_phantoms=of_phantoms))
    return out / CARD_FILE
