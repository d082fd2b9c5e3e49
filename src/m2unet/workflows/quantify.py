"""Quantify one scan from a lobe mask that already exists, whichever tool made it."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from m2unet.anatomy import CODES_BY_NAME, CodeSystem
from m2unet.cohort.masks import LobeMask, read_lobes
from m2unet.ct.findings import Finding
from m2unet.ct.identity import volume_digest
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.ct.write import write_mask
from m2unet.errors import ConfigError, RunError
from m2unet.files import write_json, write_text
from m2unet.inference.plausibility import check_prediction
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import Quantities, quantify
from m2unet.workflows.case_folder import REPLACED_FILE, read_json_file
from m2unet.workflows.run_folder import versions

QUANTIFY_SCHEMA = "m2unet.quantify/1"
NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."
RESULT_FILE = "quantify.json"

_FILES = ("lobes.csv", "regions.csv", "opacity.nii.gz", "opacity.nii", "opacity.mha", "opacity.nrrd")
_ENDINGS = {"nifti": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd"}


@dataclass(frozen=True)
class Quantified:
    """One quantified scan.

    Attributes:
        volume: the scan.
        quantities: its figures and masks.
        mask: the lobe mask, with the convention it follows.
    """

    volume: Volume
    quantities: Quantities
    mask: LobeMask

    @property
    def codes(self) -> str:
        """Whose lobe codes the mask used; ``names`` where its segments are named."""
        return self.mask.codes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of the scan, then of its lobe mask."""
        return (*self.volume.findings, *self.mask.findings)

    def document(self) -> dict[str, Any]:
        """What ``quantify.json`` holds, JSON-ready; no path and no identifier."""
        return {
            "schema": QUANTIFY_SCHEMA,
            "notice": NOTICE,
            "scan": {
                "digest": volume_digest(self.volume),
                "format": self.volume.source.format,
                "shape": list(self.volume.shape),
                "spacing_mm": list(self.volume.spacing_mm),
            },
            "mask_codes": self.codes,
            "mask": {"recognised_by": self.mask.recognised_by, "labels": dict(self.mask.labels)},
            "codes": dict(CODES_BY_NAME),
            "findings": [finding.to_dict() for finding in self.findings],
            **self.quantities.to_dict(),
            "versions": versions(),
        }


def quantify_scan(
    scan: Path,
    lobes: Path,
    *,
    codes: CodeSystem = "auto",
    config: OpacityConfig | None = None,
    series: str | None = None,
    accept: Collection[str] = (),
) -> Quantified:
    """Read a scan and its lobe mask, and measure it.

    Args:
        scan: a CT file or DICOM folder.
        lobes: the lobe mask, of any kind that :func:`m2unet.cohort.masks.read_lobes` reads, on the scan's grid.
        codes: whose lobe codes the mask uses; ``auto`` recognises them.
        config: HU cuts and scales; the defaults if None.
        series: of a DICOM folder, as for :func:`m2unet.ct.read.read_scan`.
        accept: codes of errors to live with, of the scan and of the mask.

    Raises:
        ScanError: the scan or the mask cannot be read, they do not lie on one grid, or the mask is no mask of lobes.
    """
    volume = read_scan(scan, accept=accept, series=series)
    mask = read_lobes(lobes, volume, codes, accept=accept)
    noticed = {finding.code for finding in mask.findings}
    findings = [
        finding
        for finding in check_prediction(mask.array, volume, accept)
        if not (finding.code == "lobe-missing" and "mask-missing" in noticed)  # said once
    ]
    volume = replace(volume, findings=(*volume.findings, *findings))
    found = quantify(volume.array, mask.array, volume.spacing_mm, config, voxel_ml=volume.voxel_ml)
    return Quantified(volume, found, mask)


def write_quantified(found: Quantified, out: Path, ending: str | None = None) -> Path:
    """Write tables, the opacity mask in the scan's geometry, and last ``quantify.json``.

    Args:
        found: the quantified scan.
        out: folder, made if need be.
        ending: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` of the mask; the scan's own kind if None.

    Returns:
        Path of ``quantify.json``.

    Raises:
        RunError: the folder holds the figures of another scan, or files of somebody else.
    """
    digest = volume_digest(found.volume)
    refuse_other_figures(out, digest)
    name = f"opacity{ending or _ENDINGS.get(found.volume.source.format, '.nii.gz')}"
    write_json(out / REPLACED_FILE, {"scan": {"digest": digest}})  # says whose they are if this is cut short
    for earlier in (RESULT_FILE, *(file for file in _FILES if file.startswith("opacity."))):
        (out / earlier).unlink(missing_ok=True)
    write_text(out / "lobes.csv", _csv(found.quantities.lobe_rows()))
    write_text(out / "regions.csv", _csv(found.quantities.region_rows()))
    write_mask(found.volume, found.quantities.opacity_mask, out / name)
    mask = {"file": name, "codes": {"ground glass": 1, "consolidation": 2}}
    write_json(out / RESULT_FILE, {**found.document(), "opacity_mask": mask})
    (out / REPLACED_FILE).unlink()
    return out / RESULT_FILE


def refuse_other_figures(out: Path, digest: str | None) -> None:
    """Refuse a folder that holds the figures of another scan, or files of somebody else under their names.

    Args:
        out: the folder.
        digest: of the scan to be written.

    Raises:
        RunError: saying which.
    """
    kept = read_json_file(out / RESULT_FILE) or read_json_file(out / REPLACED_FILE)
    if kept is not None:
        scan = kept.get("scan")
        same = isinstance(scan, dict) and scan.get("digest") == digest
        held = None if same else "the figures of another scan, or of a version that did not say of which"
    else:
        foreign = [file for file in _FILES if (out / file).exists()]
        held = f"{', '.join(foreign)}, and nothing that says of which scan" if foreign else None
    if held is not None:
        raise RunError(
            "The folder is not this scan's, and nothing is written there",
            found=held,
            mend="choose another --out, or delete the folder if nobody needs it",
        )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def opacity_config(assignments: Iterable[str]) -> OpacityConfig:
    """The cuts and scales with ``key=value`` overrides.

    Raises:
        ConfigError: an override without an equals sign, an unknown key, or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError("An override needs an equals sign", found=assignment, expected="key=value")
        values[key.strip()] = yaml.safe_load(text)
    try:
        return OpacityConfig.model_validate(values)
    except ValidationError as error:
        faults = [f"{'.'.join(str(p) for p in e['loc']) or 'cuts'}: {e['msg']}" for e in error.errors()]
        known = ", ".join(OpacityConfig.model_fields)
        raise ConfigError("The opacity settings are not valid", found="; ".join(faults), expected=known) from None
