"""Post-processing steps and cuts of the opacity rule for a case, from ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import yaml

from m2unet.errors import ConfigError
from m2unet.inference.postprocess import PostprocessConfig
from m2unet.quantify.opacity import OpacityConfig
from m2unet.workflows.quantify import opacity_config

_GROUPS = ("postprocess", "opacity")


def case_settings(assignments: Iterable[str]) -> tuple[PostprocessConfig, OpacityConfig]:
    """Both configurations with overrides such as ``postprocess.fill_holes=false`` or ``opacity.vote_mm=4``.

    Raises:
        ConfigError: an override without an equals sign, an unknown key, or a value that does not fit.
        M2UNetError: a share that is none.
    """
    parts: dict[str, list[str]] = {group: [] for group in _GROUPS}
    for assignment in assignments:
        group, dot, rest = assignment.strip().partition(".")
        if not dot or group not in parts:
            raise ConfigError(
                "An override of a prediction names a step or a cut",
                found=assignment,
                expected="postprocess.KEY=VALUE or opacity.KEY=VALUE",
            )
        parts[group].append(rest)
    return _postprocess(parts["postprocess"]), opacity_config(parts["opacity"])


def _postprocess(assignments: Iterable[str]) -> PostprocessConfig:
    kinds = {field.name: type(field.default) for field in fields(PostprocessConfig)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key, value = key.strip(), yaml.safe_load(text)
        kind = kinds.get(key)
        fits = isinstance(value, bool) if kind is bool else isinstance(value, int | float) and value is not True
        if not equals or kind is None or not fits:
            expected = ", ".join(f"{name}={'true|false' if of is bool else '0..1'}" for name, of in kinds.items())
            raise ConfigError("The post-processing settings are not valid", found=assignment, expected=expected)
        values[key] = value if kind is bool else float(value)
    return PostprocessConfig(**values)
