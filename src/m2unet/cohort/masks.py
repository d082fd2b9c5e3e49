"""Lobe masks: read, checked to lie on their image's grid, recoded to this package's codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m2unet.anatomy import UNDECIDED, CodeSystem
from m2unet.cohort.lobe_codes import recode, recognised
from m2unet.ct.findings import QualityError
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError

GRID_TOLERANCE = 0.1
"""How far a corner of the mask may lie from the image's corner, in sides of the smallest voxel edge."""


def read_lobe_mask(
    path: str | Path, volume: Volume, codes: CodeSystem = "m2unet", *, undecided: bool = False
) -> NDArray[np.uint8]:
    """Read a lobe mask onto the canonical grid of its image.

    The file may order and direct its axes differently from the image, as long as both cover the same physical grid.

    Args:
        path: NIfTI, MHA/MHD or NRRD.
        volume: the image it belongs to.
        codes: whose codes the file uses, one of :data:`m2unet.anatomy.CODE_SYSTEMS`; ``auto`` recognises them. With
            TotalSegmentator's, other organs become background; LUNA16's second byte marks the airway.
        undecided: let 255 pass in a mask of this package's codes: pixels whose lobe nobody says, left out of training.

    Returns:
        ``[z, y, x]`` of ``volume.shape``, codes 0-6 of :mod:`m2unet.anatomy`.

    Raises:
        ScanError: unreadable file, another grid, values that are no codes.
    """
    path = Path(path)
    array = read_mask(path, volume)
    nobody_says = array == UNDECIDED if undecided and codes in ("auto", "m2unet") else None
    known = array if nobody_says is None else np.where(nobody_says, np.int16(0), array)
    system = recognised(known, name=path.name) if codes == "auto" else codes
    if nobody_says is None or system != "m2unet":
        return recode(array, system, name=path.name)
    found = recode(known, system, name=path.name)
    found[nobody_says] = UNDECIDED
    return found


def read_mask(path: str | Path, volume: Volume) -> NDArray[np.int16]:
    """Read a mask of any kind onto the canonical grid of its image, its values as they are.

    Args:
        path: NIfTI, MHA/MHD or NRRD; axes as for :func:`read_lobe_mask`.
        volume: the image it belongs to.

    Raises:
        ScanError: unreadable file, another grid, fractions.
    """
    path = Path(path)
    mask = _read(path)
    _check_grid(mask, volume, path.name)
    return mask.array


def _read(path: Path) -> Volume:
    try:
        raw = read_raw(path)
    except QualityError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.found, mend=error.mend) from None
    except OSError as error:
        raise ScanError(f"The lobe mask {path.name} cannot be read", found=error.strerror) from None
    if np.issubdtype(raw.array.dtype, np.floating) and not np.array_equal(raw.array, np.rint(raw.array)):
        raise ScanError(f"The lobe mask {path.name} holds fractions", expected="whole codes", mend="export a label map")
    return from_source(raw.array, raw.spacing_mm, raw.origin_mm, raw.direction)


def _check_grid(mask: Volume, volume: Volume, name: str) -> None:
    problem = f"The lobe mask {name} does not lie on its image's grid"
    mend = "resample the mask to the image with nearest neighbours, or pair it with the image it was drawn on"
    if mask.shape != volume.shape:
        raise ScanError(problem, found=f"shape {mask.shape}", expected=f"{volume.shape} (z, y, x)", mend=mend)
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape[::-1]], [1])).reshape(4, -1)
    distance = np.linalg.norm(((mask.affine - volume.affine) @ ends)[:3], axis=0).max()
    if distance <= GRID_TOLERANCE * min(volume.spacing_mm):
        return
    parts: dict[str, tuple[ArrayLike, ArrayLike, float]] = {
        "spacing (z, y, x) mm": (mask.spacing_mm, volume.spacing_mm, 1e-3),
        "origin (x, y, z) mm": (mask.origin_mm, volume.origin_mm, GRID_TOLERANCE * min(volume.spacing_mm)),
        "direction": (mask.direction.ravel(), volume.direction.ravel(), 1e-4),
    }
    differing = [part for part, (a, b, most) in parts.items() if np.abs(np.asarray(a) - np.asarray(b)).max() > most]
    named = differing or list(parts)
    raise ScanError(
        problem,
        found="; ".join(f"{part} {_rounded(parts[part][0])}" for part in named) + f"; corners {distance:.3g} mm apart",
        expected="; ".join(f"{part} {_rounded(parts[part][1])}" for part in named),
        mend=mend,
    )


def _rounded(values: object) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in np.asarray(values).tolist()) + ")"
