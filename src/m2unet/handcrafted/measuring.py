"""Lobes from where the run says they come, and the scan measured in them; measured once, kept as JSON."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.cohort.masks import read_lobes
from m2unet.cohort.prepare import source_fingerprint
from m2unet.config import HandcraftedConfig
from m2unet.ct.findings import Finding
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import M2UNetError, ModelError
from m2unet.files import write_json
from m2unet.handcrafted.features import Measured, measure
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.quantify.opacity import OpacityConfig

logger = logging.getLogger(__name__)

SCHEMA = "m2unet.measured/2"


@dataclass
class Measurer:
    """Measures scans for the handcrafted methods.

    Attributes:
        config: where lobes come from.
        cache: folder of finished measurements; None keeps none.
        device: where a model that finds lobes computes.
    """

    config: HandcraftedConfig
    cache: Path | None = None
    device: str = "cpu"
    _model: Predictor | None = field(default=None, repr=False)

    def lobes(
        self, volume: Volume, mask: Path | None, codes: CodeSystem
    ) -> tuple[NDArray[np.uint8], Literal["mask", "model"], tuple[Finding, ...]]:
        """``[z, y, x]`` lobe codes of a scan, whose they are, and what is to be known of the mask.

        Args:
            volume: the scan.
            mask: its lobe mask, or None.
            codes: whose codes the mask uses.

        Raises:
            M2UNetError: there is neither a mask nor a model, or the mask does not fit.
        """
        if mask is not None and self.config.lobes == "mask":
            read = read_lobes(mask, volume, codes)
            return read.array, "mask", read.findings
        found = self._lobe_model().predict(volume, severity=False).lobes
        assert found is not None
        return postprocess_lobes(found, volume.voxel_ml).mask, "model", ()

    def measure(
        self, volume: Volume, mask: Path | None, codes: CodeSystem
    ) -> tuple[Measured, NDArray[np.uint8], tuple[Finding, ...]]:
        """The scan's features and score, the lobes they were taken in, and the findings of scan and mask."""
        lobes, source, noticed = self.lobes(volume, mask, codes)
        findings = (*volume.findings, *noticed)
        found = measure(volume.array, lobes, volume.spacing_mm, voxel_ml=volume.voxel_ml, lobes_from=source)
        warnings = tuple(sorted({finding.code for finding in findings if finding.level == "warning"}))
        return replace(found, warnings=warnings, slice_mm=volume.spacing_mm[0]), lobes, findings

    def measure_row(self, row: ManifestRow, codes: CodeSystem = "auto") -> Measured:
        """One scan of a cohort, from the cache where it is there.

        Raises:
            M2UNetError: the scan or its mask cannot be read, or there are no lobes.
        """
        path = None if self.cache is None else self.cache / f"{row.scan_id}.json"
        key = self._key(row, codes)
        if path is not None and path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["key"] == key:
                    return Measured(**{**kept["measured"], "warnings": tuple(kept["measured"]["warnings"])})
            except (ValueError, KeyError, TypeError):
                logger.warning("%s: the kept measurement is damaged and made again", row.scan_id)
        found, *_ = self.measure(read_scan(row.image, accept=row.accept), row.lobes, codes)
        if path is not None:
            write_json(path, {"key": key, "measured": found.to_dict()})
        return found

    def _key(self, row: ManifestRow, codes: CodeSystem) -> str:
        """Of everything a measurement depends on."""
        from_mask = row.lobes is not None and self.config.lobes == "mask"
        try:
            files = source_fingerprint(row, codes)
        except OSError as error:
            raise M2UNetError("A scan's files cannot be found", found=f"{row.scan_id}: {error.strerror}") from None
        model = None if from_mask else self._lobe_model().identity.weights_sha256
        facts = [SCHEMA, files, model, OpacityConfig().model_dump(mode="json")]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _lobe_model(self) -> Predictor:
        if self._model is None:
            if self.config.lobe_model is None:
                raise ModelError(
                    "The lobes of this scan are not known",
                    expected="a lobe mask with the scan, or a model that finds lobes",
                    mend="name a mask (column lobes, --lobes), or --set handcrafted.lobe_model=RUN_FOLDER",
                )
            model = Predictor.load(self.config.lobe_model, device=self.device)
            if "lobes" not in model.network.tasks:
                raise ModelError("The model finds no lobes", found=model.identity.name, mend="name another run")
            self._model = model
        return self._model


def measure_all(measurer: Measurer, rows: Sequence[ManifestRow], codes: CodeSystem, step: Any) -> dict[str, Measured]:
    """Every scan by name, in order; ``step(done, total)`` is called after each.

    Raises:
        M2UNetError: naming every scan that cannot be measured; the measurements of the others are kept.
    """
    found: dict[str, Measured] = {}
    failed: dict[str, M2UNetError] = {}
    for number, row in enumerate(rows, 1):
        try:
            found[row.scan_id] = measurer.measure_row(row, codes)
        except M2UNetError as error:
            failed[row.scan_id] = error
        step(number, len(rows))
    if failed:
        named = next(iter(failed)) if len(failed) == 1 else f"{len(failed)} of {len(rows)} scans"
        reasons = "; ".join(f"{scan_id}: {error}" for scan_id, error in failed.items())
        raise M2UNetError(f"{named} cannot be measured", found=reasons)
    return found
