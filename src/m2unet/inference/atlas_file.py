"""The atlas of lobes beside a model's weights: ``atlas.safetensors``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from m2unet.errors import ModelError
from m2unet.files import atomic_path
from m2unet.models.lobe_atlas import SHAPE, LobeAtlas

ATLAS_FILE = "atlas.safetensors"


def save_atlas(atlas: LobeAtlas, folder: Path) -> None:
    """Write an atlas, in half precision."""
    with atomic_path(folder / ATLAS_FILE) as temporary:
        temporary.write_bytes(safetensors.numpy.save({"share": atlas.share.astype(np.float16)}))


def load_atlas(folder: Path) -> LobeAtlas | None:
    """Read the atlas of a model; None if the model has none.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / ATLAS_FILE
    if not path.is_file():
        return None
    try:
        share = safetensors.numpy.load(path.read_bytes())["share"]
    except (safetensors.SafetensorError, KeyError) as error:
        raise ModelError("The atlas of the model cannot be read", found=type(error).__name__) from None
    if share.shape != (5, *SHAPE):
        raise ModelError("The atlas of the model has another size", found=share.shape, expected=(5, *SHAPE))
    return LobeAtlas(share.astype(np.float32))
