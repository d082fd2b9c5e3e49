"""What a run knows that the items of a model card ask for, as text by the names the items use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from m2unet.cohort.manifest import ManifestRow
from m2unet.config import Config
from m2unet.evaluation.summary import Spread
from m2unet.models.base import LOBES, SEVERITY
from m2unet.models.methods import METHODS, is_network
from m2unet.workflows.run_folder import versions

_MEASURES = (
    "accuracy, precision, recall, F1, AUC, specificity; Brier score, calibration error, slope and intercept; net "
    "benefit; lobes: DSC, sensitivity, PPV, surface Dice, 95 % Hausdorff distance"
)

_AT_POINT = (("recall", "sensitivity at the operating point"), ("specificity", "specificity at the operating point"))


def data_facts(card: Mapping[str, Any], split: Mapping[str, Any], rows: Sequence[ManifestRow]) -> dict[str, str]:
    """Sources, numbers and characteristics of the scans of a split, as far as ``rows`` hold them."""
    by_id = {row.scan_id: row for row in rows}
    counts, described = [], []
    for use in ("train", "validation", "test"):
        ids = split.get(use, ())
        known = [by_id[scan_id] for scan_id in ids if scan_id in by_id]
        counts.append(f"{use} {len(ids)} scans")
        if known:
            counts[-1] += f" of {len({row.patient_id for row in known})} patients"
            described.append(f"{use}: {described_rows(known)}")
    left_out = card.get("left_out_scans") or {}
    counts += [f"of the training and validation scans {n} were left out: {why}" for why, n in left_out.items()]
    sites = Counter(row.site for row in rows if row.site)
    return {
        "data": str(card.get("trained_on") or ""),
        "sites": ", ".join(f"{site} ({count} scans)" for site, count in sorted(sites.items())),
        "sample": "; ".join(counts),
        "size": "; ".join(counts) + "; why so many is yours to say",
        "characteristics": "; ".join(described),
        "partition": "as split.json says; m2unet parts by patient, stratified by severity, unless told otherwise",
        "outcome": "severe (clinical grades severe and critical at the time of the scan) or not (mild, moderate), as "
        "the manifest gives it; lobes from masks where a scan has one",
        "missing": "a scan without severity or without lobes does not enter the loss it lacks; nothing is imputed",
    }


def described_rows(rows: Sequence[ManifestRow]) -> str:
    """Severity, age and sex of scans, counted."""
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


def method_facts(config: Config, card: Mapping[str, Any]) -> dict[str, str]:
    """How the method works, from its configuration and ``model.json``."""
    used = versions()
    own = _network_facts(config, card) if is_network(config.model.name) else _handcrafted_facts(config, card)
    return {
        **own,
        "seed": f"random, from seed {config.seed}",
        "software": ", ".join(f"{name} {version}" for name, version in used.items()),
        "code": f"m2unet {used['m2unet']}, Apache-2.0; whether model and data are shared is yours to say",
        "quality": "scans that fail a check are refused; warnings, and scans unlike the training scans, leave the "
        "answer to a human",
        "measures": _MEASURES,
        "uncertainty": "95 % intervals with patients as clusters; spread over bags, or over parts of a forest",
        "updating": "none after evaluation; calibration and threshold were fitted on validation scans before it",
        "use": "the scan alone goes in, nobody prepares it; the scans left to a human need a reader of CT; what "
        "expertise that asks for is yours to say",
        "limits": "severity at the time of the scan, not prognosis; not validated for clinical use",
        **_confidence_facts(card),
        "imbalance": f"{own['imbalance']}; recalibration: see output",
    }


def _network_facts(config: Config, card: Mapping[str, Any]) -> dict[str, str]:
    train, model, bag = config.train, config.model, config.bag
    tasks = METHODS[model.name].tasks
    spacing = "the scan's own" if config.prepare.inplane_mm is None else f"{config.prepare.inplane_mm:g} mm"
    severity = {
        "prediction": f"mean over {bag.test_bags} seeded bags of random patches; one network, no ensemble",
        "explanation": "heat maps: the parts of patches and positions in the log-odds, and a finer map "
        "(docs/explanation.md)",
    }
    return {
        "model": f"{METHODS[model.name].label}, {card.get('parameters', '?')} parameters; every setting in config.yaml "
        f"(preset {config.preset})",
        "specification": f"weights.safetensors (SHA-256 {card.get('weights_sha256')}) and model.json",
        "preparation": f"crop to the body at {config.prepare.body_threshold_hu} HU, spacing in the plane {spacing}, "
        f"window {config.window.low_hu} to {config.window.high_hu} HU; quality checks stop what cannot be used",
        "predictors": "the voxels of the CT alone"
        + (" and their position in the chest" if model.position else "")
        + "; nothing clinical",
        "training": f"{card.get('epochs', '?')} epochs, {train.optimiser}, learning rate {train.lr:g}, "
        f"{train.bags_per_step} bags of {bag.size} patches of {bag.patch} x {bag.patch} a step"
        + (f", weight of the severity loss {train.lambda_mil:g}" if tasks == {SEVERITY, LOBES} else ""),
        "imbalance": f"severe scans repeated in training: {train.oversample}",
        "selection": "early stopping on validation scans"
        if train.early_stop
        else "the last epoch; nothing was selected",
        **(severity if SEVERITY in tasks else {"prediction": "slice by slice; no ensemble"}),
    }


def _handcrafted_facts(config: Config, card: Mapping[str, Any]) -> dict[str, str]:
    settings = config.handcrafted
    forest = config.model.name == "tang"
    lobes = "each scan's own mask, or a network's" if settings.lobes == "mask" else "a network's"
    rule = f"severe above a CT severity score of {card.get('threshold', '?')} of 40"
    return {
        "model": f"{METHODS[config.model.name].label}: "
        + (f"random forest of {settings.trees} trees on 88 features" if forest else rule),
        "specification": f"parameters.json (SHA-256 {card.get('weights_sha256')}) and model.json",
        "preparation": f"opacity is measured by HU inside the lobes; lobes: {lobes}",
        "predictors": ("volumes and opacities of lobes and lungs" if forest else "opacity of twenty regions")
        + ", from the CT alone; nothing clinical",
        "training": "scikit-learn's defaults" if forest else f"none but the threshold ({settings.threshold})",
        "imbalance": "both classes weigh the same in every tree" if forest else "nothing was done",
        "selection": "nothing was selected",
        "prediction": "mean over the trees" if forest else "one measurement, one rule",
        "explanation": "the features the trees use most (model.json)" if forest else "the score of each region",
    }


def _confidence_facts(card: Mapping[str, Any]) -> dict[str, str]:
    known = card.get("confidence")
    if not known:
        return {}
    calibration, point = known["calibration"], known["operating_point"]
    kind = calibration["kind"]
    how = f"{kind} map fitted on {calibration['scans']} validation scans of {calibration['patients']} patients"
    rule = f"{point['rule']}, {point['scans']} validation scans" if point["scans"] else str(point["reason"])
    if point.get("informative") is False and point["scans"]:
        rule += f"; every answer is left to a human: {point['reason']}"
    said = how if kind != "none" else f"not calibrated: {calibration['reason']}"
    return {
        "output": f"probability of severe, {said}; severe from {point['threshold']:.3f} on ({rule}); 'uncertain, read "
        "by a human' when the interval straddles it, a quality check warns, or the scan is unlike the training scans",
    }


def result_facts(found: Mapping[str, Any], *, external: bool = False) -> dict[str, str]:
    """What a ``summary.json`` says of performance.

    Args:
        found: of an evaluation or of a cross-validation; empty if there is none.
        external: whether the scans are of another cohort than the model's.
    """
    if not found:
        return {}
    figures = found["figures"].get("per_scan", found["figures"])
    said = [f"{name} {_figure(figures[name])}" for name in ("auc", "accuracy", "f1", "dsc") if name in figures]
    appraisal = found.get("appraisal") or {}
    point = appraisal.get("at_point") or {}
    said += [f"{name} {_interval(point[key])}" for key, name in _AT_POINT if key in point]
    facts = {"performance": "; ".join(said)}
    facts["external" if external else "internal"] = _tested(found)
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
        facts["fairness"] = "nothing in training; figures by subgroup in summary.json and results.md"
        facts["subgroups"] = f"figures by {', '.join(groups)} in summary.json and results.md; small ones are blank"
    kept = appraisal.get("abstention")
    if kept:
        facts["failures"] = (
            f"{kept['errors_kept']} of {kept['kept']} answered scans wrong, {kept['errors_abstained']} of "
            f"{kept['abstained']} left to a human; each scan in predictions.csv"
        )
    return facts


def _tested(found: Mapping[str, Any]) -> str:
    figures = found["figures"]
    if "per_scan" not in figures:
        return f"cross-validation, folds {', '.join(map(str, found['folds']))}, kept together by {found['by']}"
    return f"{figures['scans']} scans of {figures['patients']} patients; {figures['failed']} more could not be scored"


def _figure(figure: Mapping[str, Any]) -> str:
    """An estimate with its interval, or a mean with its standard deviation over folds."""
    return _interval(figure) if "estimate" in figure else Spread(**figure).cell() + " over folds"


def _interval(interval: Mapping[str, Any]) -> str:
    if interval["estimate"] is None:
        return "undefined"
    if interval["low"] is None:
        return f"{interval['estimate']:.3f}"
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
