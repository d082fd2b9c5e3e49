"""Load a trained model once, apply it to many scans."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m2unet.cohort.store import content_hash
from m2unet.config import Config
from m2unet.ct.prepare import prepare_volume
from m2unet.ct.read import read_scan
from m2unet.ct.volume import Volume
from m2unet.errors import ModelError
from m2unet.inference.atlas_file import load_atlas
from m2unet.inference.confidence import Confidence, Judgement, read_confidence
from m2unet.inference.engine import accelerate
from m2unet.inference.explain import Explanation, explain_severity
from m2unet.inference.lobes import segment_lobes
from m2unet.inference.lung_edge import lobes_on_volume
from m2unet.inference.network import Network
from m2unet.inference.severity import SeverityEstimate, estimate_severity
from m2unet.inference.whole_chest import check_chest, score_chest
from m2unet.models.chest_unet import ChestUNet
from m2unet.models.lobe_atlas import LobeAtlas
from m2unet.models.weights import load_model


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made a prediction.

    Attributes:
        name: its name in the registry.
        preset: the preset it was trained with.
        weights_sha256: hash of its weights file.
        trained_on: what it was trained on, in words; None if its card does not say.
        engine: what computed it and in which precision, e.g. ``openvino-bf16``.
    """

    name: str
    preset: str
    weights_sha256: str
    trained_on: str | None
    engine: str = "torch-float32"


@dataclass(frozen=True)
class Prediction:
    """Everything predicted for one scan.

    Attributes:
        volume: the scan, with its quality findings.
        lobes: ``[z, y, x]`` uint8 lobe codes on the volume's grid; None if not asked for or not the model's task.
        severity: None likewise.
        model: which model.
        seconds: wall time of each stage.
        explanation: where the severity comes from; None if not asked for.
        judgement: the severity calibrated and judged; None without severity.
        confidence: what it was judged by.
        content_sha256: hash of the prepared voxels (of the scan's own, for the whole-chest network, which needs no
            preparation); None if not asked for.
    """

    volume: Volume
    lobes: NDArray[np.uint8] | None
    severity: SeverityEstimate | None
    model: ModelIdentity
    seconds: dict[str, float] = field(default_factory=dict)
    explanation: Explanation | None = None
    judgement: Judgement | None = None
    confidence: Confidence | None = None
    content_sha256: str | None = None


class Predictor:
    """A trained network, ready for scans.

    Args:
        network: the model in evaluation mode, on ``device``.
        config: its run configuration.
        identity: which model it is.
        device: where it computes.
        confidence: what its probabilities are worth; nothing known if None.
        atlas: of lobes, for the whole-chest network; None if it has none.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        identity: ModelIdentity,
        device: torch.device,
        confidence: Confidence | None = None,
        atlas: LobeAtlas | None = None,
    ) -> None:
        self.network = network
        self.config = config
        self.identity = identity
        self.device = device
        self.confidence = confidence or Confidence()
        self.atlas = atlas

    @classmethod
    def load(
        cls, run: str | Path | None = None, *, device: str | torch.device = "cpu", engine: str = "reference"
    ) -> Predictor:
        """Load the model of a run folder, or a model folder itself; None loads the one that ships with the package.

        Args:
            run: the folder.
            device: where to compute.
            engine: what computes it, see :data:`m2unet.inference.engine.ENGINES`.

        Raises:
            ModelError: if there is no model there, or its files are damaged.
            ConfigError: if the engine is unknown, not installed, or not for this device.
        """
        folder = packaged_model() if run is None else find_model(Path(run))
        loaded = load_model(folder)
        target = torch.device(device)
        model, computed_by = accelerate(loaded.model, engine, target)
        identity = ModelIdentity(
            name=loaded.config.model.name,
            preset=loaded.config.preset,
            weights_sha256=str(loaded.card["weights_sha256"]),
            trained_on=loaded.card.get("trained_on"),
            engine=computed_by,
        )
        confidence = read_confidence(folder, loaded.card)
        return cls(model, loaded.config, identity, target, confidence, load_atlas(folder))

    def predict(
        self,
        scan: str | Path | Volume,
        *,
        lobes: bool = True,
        severity: bool = True,
        seed: int = 0,
        explain: bool = False,
        hash_content: bool = False,
        accept: Collection[str] = (),
    ) -> Prediction:
        """Predict one scan.

        Args:
            scan: a file, a DICOM folder, or a volume already read.
            lobes: whether to segment the lobes over the whole volume.
            severity: whether to estimate severity.
            seed: seed of the random bags.
            explain: whether to say where the severity comes from.
            hash_content: whether to hash the prepared voxels, as the store of a cohort does, or the scan's own for the
                whole-chest network.
            accept: codes of errors to live with as warnings, of :data:`m2unet.ct.findings.ACCEPTABLE`.

        Raises:
            QualityError: if the scan cannot be used; it carries the findings.
            ConfigError: an error that cannot be accepted.
        """
        seconds: dict[str, float] = {}
        clock = _Clock(seconds)
        volume = scan if isinstance(scan, Volume) else read_scan(scan, accept=accept)
        clock.lap("read")
        if isinstance(self.network, ChestUNet):
            found = self._whole_chest(volume, clock, lobes=lobes, accept=accept)
            return replace(found, content_sha256=content_hash(volume.array) if hash_content else None)
        prepared = prepare_volume(volume, self.config.prepare)
        clock.lap("prepare")
        tasks = self.network.tasks
        mask = None
        if lobes and "lobes" in tasks:
            mask = segment_lobes(self.network, prepared, self.config, device=self.device)
            clock.lap("lobes")
        estimate, explanation = None, None
        if severity and "severity" in tasks:
            if explain:
                estimate, explanation = explain_severity(
                    self.network, prepared, self.config, seed=seed, device=self.device
                )
            else:
                estimate = estimate_severity(self.network, prepared, self.config, seed=seed, device=self.device)
            clock.lap("severity")
        judgement = None if estimate is None else self.confidence.judge(estimate, volume.findings)
        content = content_hash(prepared.array) if hash_content else None
        return Prediction(
            volume, mask, estimate, self.identity, seconds, explanation, judgement, self.confidence, content
        )

    def _whole_chest(self, volume: Volume, clock: _Clock, *, lobes: bool, accept: Collection[str] = ()) -> Prediction:
        """By the whole-chest network, which places the slices itself and has no severity."""
        assert isinstance(self.network, ChestUNet)
        if not lobes:
            return Prediction(volume, None, None, self.identity, clock.seconds)
        found = score_chest(self.network, volume, self.config, device=self.device, atlas=self.atlas)
        volume = replace(volume, findings=volume.findings + check_chest(found, volume.findings, accept))
        clock.lap("network")
        mask = lobes_on_volume(volume, found)
        clock.lap("edge")
        return Prediction(volume, mask, None, self.identity, clock.seconds)


def packaged_model() -> Path:
    """Folder of the model that ships with the package, trained on synthetic images alone.

    Raises:
        ModelError: if this installation lacks it.
    """
    folder = Path(str(resources.files("m2unet") / "weights" / "synthetic"))
    if not (folder / "model.json").is_file():
        raise ModelError("This installation lacks the model that ships with the package", mend="install m2unet again")
    return folder


def find_model(run: Path) -> Path:
    """The model folder of a run: the folder itself, or its ``model`` subfolder.

    Raises:
        ModelError: if neither holds a model.
    """
    for folder in (run, run / "model"):
        if (folder / "model.json").is_file():
            return folder
    raise ModelError(
        "There is no trained model here",
        found=run,
        expected="a run folder with model/model.json and model/weights.safetensors",
        mend="train one with `m2unet train` or `m2unet demo`",
    )


class _Clock:
    def __init__(self, seconds: dict[str, Any]) -> None:
        self.seconds = seconds
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now
