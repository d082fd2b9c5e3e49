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

from m2unet.anatomy import CodeSystem
from m2unet.cohort.lobe_codes import recode, recognised
from m2unet.cohort.masks import read_mask
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.ct.write import write_mask
from m2unet.errors import ConfigError
from m2unet.files import write_json, write_text
from m2unet.inference.plausibility import check_prediction
from m2unet.quantify.opacity import OpacityConfig
from m2unet.quantify.quantities import Quantities, quantify
from m2unet.workflows.run_folder import versions

QUANTIFY_SCHEMA = "m2unet.quantify/1"
NOTICE = "Research use only. Not a medical device; not for diagnosis or treatment."
RESULT_FILE = "quantify.json"

_ENDINGS = {"nifti": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd"}


@dataclass(frozen=True)
class Quantified:
    """One quantified scan.

    Attributes:
        volume: the scan.
        quantities: its figures and masks.
        codes: whose lobe codes the mask used.
    """

    volume: Volume
    quantities: Quantities
    codes: str

    def document(self) -> dict[str, Any]:
        """What ``quantify.json`` holds, JSON-ready; no path and no identifier."""
        return {
            "schema": QUANTIFY_SCHEMA,
            "notice": NOTICE,
            "scan": {
                "format": self.volume.source.format,
                "shape": list(self.volume.shape),
                "spacing_mm": list(self.volume.spacing_mm),
            },
            "mask_codes": self.codes,
            "findings": [finding.to_dict() for finding in self.volume.findings],
            **self.quantities.to_dict(),
            "versions": versions(),
        }


def quantify_scan(
    scan: Path,
    lobes: Path,
    *,
    codes: CodeSystem = "auto",
    config: OpacityConfig | None = None,
    accept: Collection[str] = (),
) -> Quantified:
    """Read a scan and its lobe mask, and measure it.

    Args:
        scan: a CT file or DICOM folder.
        lobes: the lobe mask, NIfTI, MHA or NRRD, on the scan's grid.
        codes: whose lobe codes the mask uses; ``auto`` recognises them.
        config: HU cuts and scales; the defaults if None.
        accept: codes of errors to live with as warnings, of :data:`m2unet.ct.findings.ACCEPTABLE`.

    Raises:
        ScanError: the scan or the mask cannot be read, or they do not lie on one grid.
    """
    volume = read_scan(scan, accept=accept)
    raw = read_mask(lobes, volume)
    codes = recognised(raw, name=lobes.name) if codes == "auto" else codes
    mask = recode(raw, codes, name=lobes.name)
    volume = replace(volume, findings=volume.findings + check_prediction(mask, volume, accept))
    return Quantified(volume, quantify(volume.array, mask, volume.spacing_mm, config, voxel_ml=volume.voxel_ml), codes)


def write_quantified(found: Quantified, out: Path, ending: str | None = None) -> Path:
    """Write tables, the opacity mask in the scan's geometry, and last ``quantify.json``.

    Args:
        found: the quantified scan.
        out: folder, made if need be.
        ending: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` of the mask; the scan's own kind if None.

    Returns:
        Path of ``quantify.json``.
    """
    name = f"opacity{ending or _ENDINGS.get(found.volume.source.format, '.nii.gz')}"
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "lobes.csv", _csv(found.quantities.lobe_rows()))
    write_text(out / "regions.csv", _csv(found.quantities.region_rows()))
    write_mask(found.volume, found.quantities.opacity_mask, out / name)
    mask = {"file": name, "codes": {"ground glass": 1, "consolidation": 2}}
    write_json(out / RESULT_FILE, {**found.document(), "opacity_mask": mask})
    return out / RESULT_FILE


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
