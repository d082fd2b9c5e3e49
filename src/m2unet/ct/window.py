"""The grey window: from HU to the network's input range."""

from __future__ import annotations

from typing import Any, TypeVar

from m2unet.config import WindowConfig

Values = TypeVar("Values", bound=Any)


def apply_window(values: Values, config: WindowConfig) -> Values:
    """Clamp HU to the window and scale it to [0, 1] (the paper's [0, 255] divided by 255).

    Args:
        values: a NumPy array or torch tensor of HU, any shape and real dtype.
        config: the window; [-1200, 0] HU in the paper.

    Returns:
        The same kind and shape, float32.
    """
    # to float first: an 8-bit array cannot be compared with -1200
    floats = values.float() if hasattr(values, "float") else values.astype("float32")
    return (floats.clip(config.low_hu, config.high_hu) - config.low_hu) / (config.high_hu - config.low_hu)
