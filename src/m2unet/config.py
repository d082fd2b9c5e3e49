"""The configuration of a run: one pydantic model a subject, presets in ``presets/*.yaml``, dotted overrides.

An unknown key is an error. Constants of the paper carry its equation or table; the ``paper`` preset is these defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from m2unet.errors import ConfigError

PositionReference = Literal["none", "body", "lungs"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrepareConfig(_Section):
    """From a volume to the store: body crop (Sect. III-A of the paper), optional in-plane resampling."""

    body_threshold_hu: int = Field(0, ge=-1000, le=500, description="0 HU in the paper; -500 keeps fat")
    min_box: int = Field(256, ge=16, description="least height and width of the axial box, voxels")
    inplane_mm: float | None = Field(
        None, gt=0, description="resample each slice to this spacing; None keeps the scan's own, as the paper does"
    )


class WindowConfig(_Section):
    """Grey window: clamp to [low, high] HU, scale to [0, 1] (the paper's [0, 255] divided by 255)."""

    low_hu: int = Field(-1200, description="width 1200, level -600 in the paper")
    high_hu: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> WindowConfig:
        if self.low_hu >= self.high_hu:
            raise ValueError("low_hu must lie below high_hu")
        return self


class BagConfig(_Section):
    """How a scan becomes a bag of patches."""

    size: int = Field(200, ge=1, description="patches a bag, Table VI")
    patch: int = Field(128, ge=16, multiple_of=16, description="side of a patch, voxels")
    region: Literal["body", "lungs"] = Field(
        "body", description="where patches are drawn: the body crop, as the paper does, or the coarse lungs' box"
    )
    position: PositionReference = Field("none", description="reference box of the position channels")
    test_bags: int = Field(5, ge=1, description="seeded bags averaged at test time")


class ModelConfig(_Section):
    """Which network, and its sizes (Table I)."""

    name: str = "m2unet"
    width: int = Field(64, ge=1, description="channels of encoder 1-4 and of the decoder")
    deep_width: int = Field(512, ge=1, description="channels of encoder 5")
    instance_concepts: int = Field(256, ge=1, description="GCP concepts at the embedding level")
    bag_concepts: int = Field(128, ge=1, description="GCP concepts at the image level")
    classes: Literal[6, 7] = Field(7, description="background, five lobes, and with 7 airway/other")
    position: bool = Field(False, description="three more input channels holding each pixel's position")
    context: int = Field(0, ge=0, le=8, description="chest_unet: slices seen above and below the one segmented")
    pooling_norm: Literal["batch", "bias", "none"] = Field("batch", description="R(w) of Eq. 2")
    similarity: Literal["cosine", "dot"] = "cosine"
    activation: bool = Field(False, description="ReLU after the 1x1 convolutions that follow each GCP")


class TrainConfig(_Section):
    """Optimisation. Defaults are the paper's (Sect. III-B)."""

    epochs: int = Field(100, ge=1)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    poly_power: float = Field(0.75, ge=0)
    bags_per_step: int = Field(4, ge=1, description="bags that share one set of batch statistics")
    accumulate: int = Field(
        1, ge=1, description="steps whose gradients are averaged into one update; each keeps its own statistics"
    )
    lambda_mil: float = Field(
        0.01, ge=0, description="weight of the severity loss beside the lobe loss; no effect on a method of one task"
    )
    oversample: Literal["balance", "none"] | float = Field(
        "balance", description="repeat severe scans until balanced, or by this factor"
    )
    precision: Literal["float32", "bf16", "auto"] = Field(
        "float32", description="auto: bf16 where the hardware multiplies it, else float32"
    )
    average: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay a step of the exponential average of weights to keep",
    )
    checkpointing: bool = Field(True, description="recompute activations in the backward pass")
    compile: bool = Field(False, description="compile the encoder and decoder with torch.compile; pays on a GPU")
    statistics: Literal["synchronised", "local", "frozen"] = Field(
        "synchronised", description="of batch normalisation: of all processes' bags, of each process's own, or running"
    )
    workers: int = Field(0, ge=0, description="loader processes")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    early_stop: int | None = Field(None, ge=1, description="stop after so many validations without improvement")
    refresh_statistics: bool = Field(True, description="recompute running batch statistics before evaluating")


class ConfidenceConfig(_Section):
    """Calibration, operating point and the check for unusual scans, fitted on validation scans after training."""

    calibration: Literal["logistic", "temperature", "isotonic", "none"] = Field(
        "logistic", description="slope and shift of the log-odds, slope alone, a rising step function, or nothing"
    )
    rule: Literal["youden", "sensitivity", "f1", "accuracy"] = Field("youden", description="of the operating point")
    target_sensitivity: float = Field(0.95, gt=0, le=1, description="least sensitivity under the rule `sensitivity`")
    reference_scans: int = Field(300, ge=0, description="training scans by which unusual ones are told")
    usual_quantile: float = Field(0.975, gt=0.5, le=0.999, description="share of usual scans that pass as such")


class HandcraftedConfig(_Section):
    """The two methods without a network: ``model.name`` ``tang`` (random forest) and ``yang`` (score rule)."""

    lobes: Literal["mask", "model"] = Field(
        "mask", description="each scan's own mask, and lobe_model's where it has none; or always lobe_model's"
    )
    lobe_model: str | None = Field(None, description="run folder of a network that finds lobes")
    trees: int = Field(500, ge=1, description="tang: trees of the forest")
    threshold: float | Literal["validation"] = Field(
        19.5, description="yang: severe above this score of 0-40; or the best on validation scans"
    )


class Config(_Section):
    """Everything that decides a run."""

    preset: str = "paper"
    seed: int = Field(0, ge=0)
    prepare: PrepareConfig = PrepareConfig()
    window: WindowConfig = WindowConfig()
    bag: BagConfig = BagConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    confidence: ConfidenceConfig = ConfidenceConfig()
    handcrafted: HandcraftedConfig = HandcraftedConfig()

    @model_validator(mode="after")
    def _position_agrees(self) -> Config:
        if self.model.position and self.bag.position == "none":
            raise ValueError("model.position needs bag.position to be body or lungs")
        return self


def preset_names() -> list[str]:
    """Names of the presets shipped with the package."""
    folder = resources.files("m2unet") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str | Path = "paper", overrides: Iterable[str] = ()) -> Config:
    """Read a preset by name or a YAML file, then apply ``section.key=value`` overrides in order.

    Args:
        source: a name of :func:`preset_names`, or the path of a YAML file.
        overrides: dotted assignments; values are parsed as YAML.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, value of the wrong kind.
    """
    values = _read(source)
    for override in overrides:
        _assign(values, override)
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate a mapping as a :class:`Config`.

    Raises:
        ConfigError: listing every fault at once.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        faults = [f"{'.'.join(str(p) for p in e['loc']) or 'config'}: {e['msg']}" for e in error.errors()]
        raise ConfigError("The configuration is not valid", found="; ".join(faults)) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML that :func:`load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read(source: str | Path) -> dict[str, Any]:
    if str(source) in preset_names():
        text = (resources.files("m2unet") / "presets" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(
                "There is no such preset or file", found=source, expected=f"one of {preset_names()} or a YAML file"
            )
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError("The configuration is not valid YAML", found=str(error).replace("\n", " ")) from None
    if not isinstance(values, dict):
        raise ConfigError("A configuration is a mapping", found=type(values).__name__, expected="section: {key: value}")
    return values


def _assign(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError("An override needs an equals sign", found=override, expected="section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError("The value of an override is not valid YAML", found=override) from None
    *sections, key = path.strip().split(".")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError("An override names a section that is a value", found=override)
    target[key] = value
