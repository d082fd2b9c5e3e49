"""Every method by name: what it gives, what a table calls it, how it is configured.

Networks are built by :mod:`m2unet.models.registry`; ``tang`` and ``yang`` are no networks but are trained, evaluated
and cross-validated by the same commands. This table is data alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from m2unet.errors import ConfigError
from m2unet.models.base import LOBES, SEVERITY


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: what ``--model`` calls it.
        label: its name in the paper's tables.
        tasks: ``severity``, ``lobes`` or both.
        settings: overrides of the configuration that make it.
        network: whether it is one, trained by gradient descent on bags.
    """

    name: str
    label: str
    tasks: frozenset[str]
    settings: tuple[str, ...]
    network: bool = True


def _network(name: str, label: str, *tasks: str) -> Method:
    return Method(name, label, frozenset(tasks), (f"model.name={name}",))


_METHODS = (
    _network("m2unet", "M²UNet", SEVERITY, LOBES),
    _network("cls_only", "Cls. only", SEVERITY),
    _network("seg_only", "Seg. only", LOBES),
    _network("unet", "U-Net", LOBES),
    _network("unetpp", "U-Net++", LOBES),
    _network("gated_mil", "Gated Att. MIL", SEVERITY),
    _network("resnet50_max", "ResNet50 + Max", SEVERITY),
    _network("chest_unet", "Whole-chest U-Net", LOBES),
    Method("tang", "Tang et al.", frozenset({SEVERITY}), ("model.name=tang",), network=False),
    Method("yang", "Yang et al.", frozenset({SEVERITY}), ("model.name=yang",), network=False),
    Method(
        "m2unet_position",
        "M²UNet with position (ours)",
        frozenset({SEVERITY, LOBES}),
        ("model.name=m2unet", "bag.position=lungs", "model.position=true"),
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _METHODS})


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in METHODS:
        raise ConfigError("There is no such method", found=name, expected=f"one of {', '.join(METHODS)}")
    return METHODS[name]


def is_network(name: str) -> bool:
    """Whether a configuration's ``model.name`` is a network's; an unknown name counts as one and fails when built."""
    return name not in METHODS or METHODS[name].network
