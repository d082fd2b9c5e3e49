"""The one registry of networks: a name, a builder, one line of description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from m2unet.config import ModelConfig
from m2unet.errors import ModelError
from m2unet.models.base import LOBES, SEVERITY, SeverityModel


@dataclass(frozen=True)
class ModelEntry:
    """One network of the registry.

    Attributes:
        name: what a configuration calls it.
        summary: one line.
        build: makes it, with fresh random weights.
    """

    name: str
    summary: str
    build: Callable[[ModelConfig], SeverityModel]


def _m2unet(*tasks: str) -> Callable[[ModelConfig], SeverityModel]:
    def build(config: ModelConfig) -> SeverityModel:
        from m2unet.models.m2unet import M2UNet

        return M2UNet(config, frozenset(tasks))

    return build


def _unet(config: ModelConfig) -> SeverityModel:
    from m2unet.models.unet import UNet

    return UNet(config)


def _unetpp(config: ModelConfig) -> SeverityModel:
    from m2unet.models.unetpp import UNetPlusPlus

    return UNetPlusPlus(config)


def _chest_unet(config: ModelConfig) -> SeverityModel:
    from m2unet.models.chest_unet import ChestUNet

    return ChestUNet(config)


def _gated_mil(config: ModelConfig) -> SeverityModel:
    from m2unet.models.gated_mil import GatedMIL

    return GatedMIL(config)


def _resnet_max(config: ModelConfig) -> SeverityModel:
    from m2unet.models.resnet_max import ResNetMax

    return ResNetMax(config)


_ENTRIES = (
    ModelEntry("m2unet", "M²UNet: severity and lobes from one encoder (He et al. 2020)", _m2unet(SEVERITY, LOBES)),
    ModelEntry("cls_only", "M²UNet without its decoder: severity alone", _m2unet(SEVERITY)),
    ModelEntry("seg_only", "M²UNet without its multi-instance stages: lobes alone", _m2unet(LOBES)),
    ModelEntry("unet", "U-Net: lobes alone (Ronneberger et al. 2015)", _unet),
    ModelEntry("unetpp", "U-Net++: lobes alone (Zhou et al. 2018)", _unetpp),
    ModelEntry("chest_unet", "U-Net for whole slices with neighbours and height as channels: lobes alone", _chest_unet),
    ModelEntry("gated_mil", "gated attention over patches: severity alone (Ilse et al. 2018)", _gated_mil),
    ModelEntry("resnet50_max", "ResNet-50 on each patch, maximum over the scan: severity alone", _resnet_max),
)

MODELS: MappingProxyType[str, ModelEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def model_names() -> list[str]:
    """Names of all networks, M²UNet first."""
    return list(MODELS)


def build_model(config: ModelConfig) -> SeverityModel:
    """A new network with random weights (seed torch before for reproducible ones).

    Raises:
        ModelError: no network of that name.
    """
    entry = MODELS.get(config.name)
    if entry is None:
        raise ModelError("There is no such network", found=config.name, expected=f"one of {', '.join(MODELS)}")
    return entry.build(config)
