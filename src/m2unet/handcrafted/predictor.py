"""A trained handcrafted method, ready for scans: the same calls as :class:`m2unet.inference.predictor.Predictor`."""

from __future__ import annotations

import time
from pathlib import Path

from m2unet.anatomy import CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.config import Config
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.handcrafted.measuring import Measurer
from m2unet.handcrafted.model import Decider, decide, load_decider
from m2unet.inference.predictor import ModelIdentity, Prediction, find_model
from m2unet.inference.severity import SeverityEstimate


class HandcraftedPredictor:
    """Tang's forest or Yang's rule.

    Args:
        decider: the trained method.
        config: its run configuration.
        identity: which model it is.
        measurer: where lobes come from.
    """

    def __init__(self, decider: Decider, config: Config, identity: ModelIdentity, measurer: Measurer) -> None:
        self.decider = decider
        self.config = config
        self.identity = identity
        self.measurer = measurer

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
        decider, config, card = load_decider(find_model(Path(run)))
        identity = ModelIdentity(config.model.name, config.preset, card["weights_sha256"], card.get("trained_on"))
        return cls(decider, config, identity, Measurer(config.handcrafted, cache, device))

    def estimate_row(self, row: ManifestRow, codes: CodeSystem = "m2unet") -> SeverityEstimate:
        """Severity of one scan of a cohort; a measurement in the cache is used.

        Raises:
            M2UNetError: the scan or its mask cannot be read, or there are no lobes.
        """
        return _estimate(decide(self.decider, self.measurer.measure_row(row, codes)), seed=0)

    def predict(
        self,
        scan: str | Path | Volume,
        *,
        lobes: bool = True,
        severity: bool = True,
        seed: int = 0,
        mask: Path | None = None,
        codes: CodeSystem = "m2unet",
    ) -> Prediction:
        """Predict one scan. The lobes handed back are those that were used: the mask's, or the lobe model's.

        Args:
            scan: a file, a DICOM folder, or a volume already read.
            lobes, severity: what is wanted.
            seed: nothing here is random.
            mask: the scan's lobe mask, or None.
            codes: whose codes the mask uses.

        Raises:
            QualityError: if the scan cannot be used.
            M2UNetError: if there is neither a mask nor a lobe model.
        """
        started = time.perf_counter()
        volume = scan if isinstance(scan, Volume) else read_scan(scan)
        read = time.perf_counter()
        measured, used = self.measurer.measure(volume, mask, codes)
        seconds = {"read": read - started, "measure": time.perf_counter() - read}
        estimate = _estimate(decide(self.decider, measured), seed) if severity else None
        return Prediction(volume, used if lobes else None, estimate, self.identity, seconds)


def _estimate(probability: float, seed: int) -> SeverityEstimate:
    return SeverityEstimate(probability, spread=0.0, bags=(probability,), seed=seed)
