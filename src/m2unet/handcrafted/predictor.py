"""A trained handcrafted method, ready for scans: the same calls as :class:`m2unet.inference.predictor.Predictor`."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.config import Config
from m2unet.ct.findings import Finding
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.handcrafted.features import Measured
from m2unet.handcrafted.measuring import Measurer
from m2unet.handcrafted.model import Decider, estimate, load_decider
from m2unet.handcrafted.score_rule import ScoreRule
from m2unet.inference.confidence import Confidence, Judgement, read_confidence
from m2unet.inference.predictor import ModelIdentity, Prediction, find_model
from m2unet.inference.severity import SeverityEstimate


@dataclass(frozen=True)
class Assessed:
    """One scan of a cohort.

    Attributes:
        measured: what was measured.
        estimate: the method's own answer.
        judgement: calibrated, decided, or left to a human.
    """

    measured: Measured
    estimate: SeverityEstimate
    judgement: Judgement


class HandcraftedPredictor:
    """Tang's forest or Yang's rule.

    Args:
        decider: the trained method.
        config: its run configuration.
        identity: which model it is.
        measurer: where lobes come from.
        confidence: what its scores are worth; nothing known if None.
    """

    def __init__(
        self,
        decider: Decider,
        config: Config,
        identity: ModelIdentity,
        measurer: Measurer,
        confidence: Confidence | None = None,
    ) -> None:
        self.decider = decider
        self.config = config
        self.identity = identity
        self.measurer = measurer
        self.confidence = confidence or Confidence()

    @property
    def decides_from(self) -> float:
        """From which calibrated probability on the paper's figures call a scan severe: one half, or the score rule."""
        return self.confidence.calibrator(0.5) if isinstance(self.decider, ScoreRule) else 0.5

    @classmethod
    def load(cls, run: str | Path, *, device: str = "cpu", cache: Path | None = None) -> HandcraftedPredictor:
        """Load the method of a run folder, or a model folder itself.

        Args:
            run: the folder.
            device: for a network that finds lobes, where the run uses one.
            cache: folder of finished measurements.

        Raises:
            ModelError: if there is no model there, or its files are damaged.
        """
        folder = find_model(Path(run))
        decider, config, card = load_decider(folder)
        identity = ModelIdentity(config.model.name, config.preset, card["weights_sha256"], card.get("trained_on"))
        measurer = Measurer(config.handcrafted, cache, device)
        return cls(decider, config, identity, measurer, read_confidence(folder, card))

    def assess_row(self, row: ManifestRow, codes: CodeSystem = "auto") -> Assessed:
        """Severity of one scan of a cohort; a measurement in the cache is used.

        Raises:
            M2UNetError: the scan or its mask cannot be read, or there are no lobes.
        """
        measured = self.measurer.measure_row(row, codes)
        found = estimate(self.decider, measured)
        warnings = [Finding(code, "warning", "noticed when it was measured", "") for code in measured.warnings]
        return Assessed(measured, found, self.confidence.judge(found, warnings))

    def predict(
        self,
        scan: str | Path | Volume,
        *,
        lobes: bool = True,
        severity: bool = True,
        seed: int = 0,
        mask: Path | None = None,
        codes: CodeSystem = "auto",
        accept: Collection[str] = (),
    ) -> Prediction:
        """Predict one scan. The lobes handed back are those that were used: the mask's, or the lobe model's.

        Args:
            scan: a file, a DICOM folder, or a volume already read.
            lobes, severity: what is wanted.
            seed: nothing here is random.
            mask: the scan's lobe mask, or None.
            codes: whose codes the mask uses.
            accept: codes of errors to live with as warnings, of :data:`m2unet.ct.findings.ACCEPTABLE`.

        Raises:
            QualityError: if the scan cannot be used.
            M2UNetError: if there is neither a mask nor a lobe model.
        """
        started = time.perf_counter()
        volume = scan if isinstance(scan, Volume) else read_scan(scan, accept=accept)
        read = time.perf_counter()
        measured, used, findings = self.measurer.measure(volume, mask, codes)
        volume = replace(volume, findings=findings)
        seconds = {"read": read - started, "measure": time.perf_counter() - read}
        found = estimate(self.decider, measured, seed) if severity else None
        judgement = None if found is None else self.confidence.judge(found, volume.findings)
        mask_used = used if lobes else None
        return Prediction(
            volume, mask_used, found, self.identity, seconds, judgement=judgement, confidence=self.confidence
        )
