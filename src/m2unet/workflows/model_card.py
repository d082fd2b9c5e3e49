"""Gather what a run folder knows of its model into ``MODEL_CARD.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m2unet.cohort.manifest import ManifestRow
from m2unet.config import Config, load_config
from m2unet.files import write_text
from m2unet.inference.predictor import find_model
from m2unet.report.model_card import render_model_card
from m2unet.workflows.run_folder import RunFolder, read_json, versions

CARD_FILE = "MODEL_CARD.md"

_MEASURES = (
    "accuracy, precision, recall, F1, AUC, specificity; Brier score, calibration error, slope and intercept; net "
    "benefit; lobes: DSC, sensitivity, PPV, surface Dice, 95 % Hausdorff distance"
)


def write_model_card(run: Path, rows: Sequence[ManifestRow] = (), evaluation: Path | None = None) -> Path | None:
    """Write the card of a run folder.

    Args:
        run: the run folder, with a finished model.
        rows: manifest rows of its scans, for their characteristics.
        evaluation: a ``summary.json`` of an evaluation, if there is one.

    Returns:
        The file; None for a folder that is no run folder.
    """
    folder = RunFolder(run)
    if not folder.config_file.is_file():
        return None
    config = load_config(folder.config_file)
    card = read_json(find_model(run) / "model.json")
    split = read_json(folder.split_file)
    found = read_json(evaluation) if evaluation is not None and evaluation.is_file() else {}
    facts = {**_data_facts(card, split, rows), **_method_facts(config, card), **_result_facts(found)}
    facts = {name: text for name, text in facts.items() if text}
    of_phantoms = "phantom" in str(card.get("trained_on", "")).lower()
    write_text(run / CARD_FILE, render_model_card(config.model.name, facts, of_phantoms=of_phantoms))
    return run / CARD_FILE


def _data_facts(card: Mapping[str, Any], split: Mapping[str, Any], rows: Sequence[ManifestRow]) -> dict[str, str]:
    by_id = {row.scan_id: row for row in rows}
    counts, described = [], []
    for use in ("train", "validation", "test"):
        ids = split.get(use, ())
        known = [by_id[scan_id] for scan_id in ids if scan_id in by_id]
        counts.append(f"{use} {len(ids)} scans")
        if known:
            counts[-1] += f" of {len({row.patient_id for row in known})} patients"
            described.append(f"{use}: {_described(known)}")
    sites = Counter(row.site for row in rows if row.site)
    return {
        "data": str(card.get("trained_on") or ""),
        "sites": ", ".join(f"{site} ({count} scans)" for site, count in sorted(sites.items())),
        "sample": "; ".join(counts),
        "characteristics": "; ".join(described),
        "partition": "as split.json says; m2unet parts by patient, stratified by severity, unless told otherwise",
        "outcome": "severe (clinical grades severe and critical at the time of the scan) or not (mild, moderate), as "
        "the manifest gives it; lobes from masks where a scan has one",
        "missing": "a scan without severity or without lobes does not enter the loss it lacks; nothing is imputed",
    }


def _described(rows: Sequence[ManifestRow]) -> str:
    parts = [
        f"{sum(row.severity == 1 for row in rows)} severe of {sum(row.severity is not None for row in rows)} known"
    ]
    ages = sorted(row.age for row in rows if row.age is not None)
    if ages:
        parts.append(f"age {ages[0]:g} to {ages[-1]:g}, median {ages[len(ages) // 2]:g}")
    sexes = Counter(row.sex for row in rows if row.sex)
    if sexes:
        parts.append("sex " + ", ".join(f"{sex} {count}" for sex, count in sorted(sexes.items())))
    return ", ".join(parts)


def _method_facts(config: Config, card: Mapping[str, Any]) -> dict[str, str]:
    train, model, bag = config.train, config.model, config.bag
    spacing = "the scan's own" if config.prepare.inplane_mm is None else f"{config.prepare.inplane_mm:g} mm"
    used = versions()
    return {
        "model": f"{model.name}, {card.get('parameters', '?')} parameters; He et al. 2020 (arXiv 2005.03832) where it "
        f"says so; every setting in config.yaml (preset {config.preset})",
        "specification": f"weights.safetensors (SHA-256 {card.get('weights_sha256')}) and model.json",
        "preparation": f"crop to the body at {config.prepare.body_threshold_hu} HU, spacing in the plane {spacing}, "
        f"window {config.window.low_hu} to {config.window.high_hu} HU; quality checks stop what cannot be used",
        "predictors": "the voxels of the CT alone"
        + (" and their position in the chest" if model.position else "")
        + "; nothing clinical",
        "training": f"{card.get('epochs', '?')} epochs, {train.optimiser}, learning rate {train.lr:g}, "
        f"{train.bags_per_step} bags of {bag.size} patches of {bag.patch} x {bag.patch} a step, weight of the severity "
        f"loss {train.lambda_mil:g}",
        "imbalance": f"severe scans repeated in training: {train.oversample}",
        "seed": f"random, from seed {config.seed}",
        "selection": "early stopping on validation scans"
        if train.early_stop
        else "the last epoch; nothing was selected",
        "software": ", ".join(f"{name} {version}" for name, version in used.items()),
        "prediction": f"mean over {bag.test_bags} seeded bags of random patches; one network, no ensemble",
        "explanation": "heat maps: integrated gradients on the winning patches and a finer map (docs/explanation.md)",
        "code": f"m2unet {used['m2unet']}, Apache-2.0; whether model and data are shared is yours to say",
        "quality": "scans that fail a check are refused; warnings, and scans unlike the training scans, leave the "
        "answer to a human",
        "measures": _MEASURES,
        "uncertainty": "95 % bootstrap intervals, patients resampled; spread over bags",
        "limits": "severity at the time of the scan, not prognosis; not validated for clinical use",
        **_confidence_facts(card),
    }


def _confidence_facts(card: Mapping[str, Any]) -> dict[str, str]:
    known = card.get("confidence")
    if not known:
        return {}
    calibration, point = known["calibration"], known["operating_point"]
    kind = calibration["kind"]
    how = f"{kind} map fitted on {calibration['scans']} validation scans of {calibration['patients']} patients"
    rule = f"{point['rule']}, {point['scans']} validation scans" if point["scans"] else str(point["reason"])
    return {
        "calibration": how if kind != "none" else f"none: {calibration['reason']}",
        "output": f"probability of severe; severe from {point['threshold']:.3f} on ({rule}); 'uncertain, read by a "
        "human' when the interval straddles it, a quality check warns, or the scan is unlike the training scans",
    }


def _result_facts(found: Mapping[str, Any]) -> dict[str, str]:
    if not found:
        return {}
    figures = found["figures"]["per_scan"]
    said = [f"{name} {_interval(figures[name])}" for name in ("auc", "accuracy", "f1", "dsc") if name in figures]
    appraisal = found.get("appraisal") or {}
    point = appraisal.get("at_point") or {}
    said += [f"{name} {_interval(point[key])}" for key, name in _AT_POINT if key in point]
    facts = {
        "performance": "; ".join(said),
        "internal": f"{found['figures']['scans']} scans of {found['figures']['patients']} patients, "
        f"{found['figures']['failed']} of them could not be scored",
    }
    leakage = appraisal.get("leakage")
    if leakage:
        facts["leakage"] = (
            "PATIENTS OR IMAGES ON BOTH SIDES"
            if leakage["found"]
            else "patient and image: none on both sides"
            if leakage["checked"]
            else f"not checked: {leakage['reason']}"
        )
    groups = appraisal.get("subgroups") or {}
    if groups:
        facts["subgroups"] = f"figures by {', '.join(groups)} in summary.json and results.md; small ones are blank"
    kept = appraisal.get("abstention")
    if kept:
        facts["failures"] = (
            f"{kept['errors_kept']} of {kept['kept']} answered scans wrong, {kept['errors_abstained']} of "
            f"{kept['abstained']} left to a human; each scan in predictions.csv"
        )
    return facts


_AT_POINT = (("recall", "sensitivity at the operating point"), ("specificity", "specificity at the operating point"))


def _interval(interval: Mapping[str, Any]) -> str:
    if interval["estimate"] is None:
        return "undefined"
    if interval["low"] is None:
        return f"{interval['estimate']:.3f}"
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
