"""Tidy a lobe mask: stray islands and enclosed holes. Each step is optional and says what it changed.

No step ever removes the largest piece of a lobe, so no lobe disappears.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import AIRWAY, LOBES
from m2unet.errors import M2UNetError
from m2unet.quantify.boxes import code_boxes, union_box
from m2unet.quantify.pieces import find_pieces


@dataclass(frozen=True)
class PostprocessConfig:
    """Which steps are done.

    Attributes:
        largest_component: keep the largest face-connected piece of each lobe; smaller ones are islands.
        keep_share: a piece of at least this share of its lobe's largest one is kept too: dense disease that the
            network missed can cut a lobe in two. 1 keeps only the largest.
        reassign_islands: an island takes the code of the lobe it touches most; without, every island is removed.
        reassign_contact: least share of an island's faces on that lobe; one that touches less is removed.
        fill_holes: background that lobes and airway enclose on all sides takes the lobe it touches most.
    """

    largest_component: bool = True
    keep_share: float = 0.2
    reassign_islands: bool = True
    reassign_contact: float = 0.3
    fill_holes: bool = True

    def __post_init__(self) -> None:
        for name in ("keep_share", "reassign_contact"):
            if not 0 <= getattr(self, name) <= 1:
                raise M2UNetError(f"{name} is a share", found=getattr(self, name), expected="0 to 1")


@dataclass(frozen=True)
class PostprocessStep:
    """What one step changed.

    Attributes:
        name: ``islands-reassigned``, ``islands-removed`` or ``holes-filled``.
        pieces: connected pieces changed.
        voxels: voxels changed.
        ml: their volume.
        change_ml: by lobe abbreviation, volume gained (or, negative, lost); lobes that did not change are left out.
    """

    name: str
    pieces: int
    voxels: int
    ml: float
    change_ml: dict[str, float]


@dataclass(frozen=True)
class Postprocessed:
    """A tidied mask.

    Attributes:
        mask: ``[z, y, x]`` uint8 lobe codes, a new array or the one that was given for it.
        steps: what was done, in order; a step that was asked for and found nothing is there with zeros.
    """

    mask: NDArray[np.uint8]
    steps: tuple[PostprocessStep, ...]


def postprocess_lobes(
    mask: NDArray[np.uint8],
    voxel_ml: float,
    config: PostprocessConfig | None = None,
    *,
    out: NDArray[np.uint8] | None = None,
) -> Postprocessed:
    """Tidy a lobe mask.

    Args:
        mask: ``[z, y, x]`` uint8 codes 0-6 of :mod:`m2unet.anatomy`; the airway is never changed.
        voxel_ml: volume of one voxel, millilitres.
        config: which steps; the defaults if None.
        out: where the tidied mask is written; ``mask`` itself saves a copy. A new array if None.

    Raises:
        M2UNetError: if the mask is not 3-D uint8, or holds an unknown code.
    """
    settings = config or PostprocessConfig()
    if mask.ndim != 3 or mask.dtype != np.uint8 or (mask.size and int(mask.max()) > AIRWAY):
        raise M2UNetError(
            "A lobe mask is a 3-D uint8 array of codes", found=f"{mask.dtype} {mask.shape}", expected=f"0-{AIRWAY}"
        )
    if out is None:
        result = mask.copy()
    else:
        result = out
        np.copyto(result, mask)
    box = union_box(code_boxes(result).values())
    if box is None:
        return Postprocessed(result, ())
    # With a rim of background every voxel has six neighbours, and what reaches the box's border is no hole.
    work = np.pad(result[box], 1)
    steps: list[PostprocessStep] = []
    if settings.largest_component:
        steps += _settle_islands(work, voxel_ml, settings)
    if settings.fill_holes:
        steps.append(_fill_holes(work, voxel_ml))
    result[box] = work[1:-1, 1:-1, 1:-1]
    return Postprocessed(result, tuple(steps))


@dataclass(frozen=True)
class _Pieces:
    """Numbered pieces of the working mask, numbers from 1.

    Attributes:
        where: flat indices of the voxels of all pieces, rising.
        label: number of the piece at each of them.
        origin: by number, the code the piece had; entry 0 is no piece.
    """

    where: NDArray[np.int64]
    label: NDArray[np.int32]
    origin: NDArray[np.uint8]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Voxels by number."""
        return np.bincount(self.label, minlength=self.origin.size)

    def label_at(self, flat: NDArray[np.int64]) -> NDArray[np.int32]:
        """Number of the piece at flat indices, 0 for none."""
        place = np.minimum(np.searchsorted(self.where, flat), self.where.size - 1)
        return np.where(self.where[place] == flat, self.label[place], np.int32(0))


def _settle_islands(work: NDArray[np.uint8], voxel_ml: float, config: PostprocessConfig) -> list[PostprocessStep]:
    """Give islands to the lobe that they touch most, or to the background."""
    pieces = _find_islands(work, config.keep_share)
    flat = work.reshape(-1)
    flat[pieces.where] = 0
    taken = np.zeros(pieces.origin.size, dtype=np.uint8)
    if config.reassign_islands:
        taken = _neighbour(work, pieces, config.reassign_contact)
        flat[pieces.where] = taken[pieces.label]
    removed = _step("islands-removed", pieces, taken, taken == 0, voxel_ml)
    return (
        [_step("islands-reassigned", pieces, taken, taken > 0, voxel_ml), removed]
        if config.reassign_islands
        else [removed]
    )


def _find_islands(work: NDArray[np.uint8], keep_share: float) -> _Pieces:
    where, label = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    origin = [0]
    for code, box in code_boxes(work).items():
        if code == AIRWAY:
            continue
        part = work[box]
        pieces = find_pieces(_equal_to(part, code), part.shape)
        sizes = pieces.sizes[1:]
        islands = 1 + np.flatnonzero(sizes < max(keep_share * int(sizes.max()), 1))
        if not islands.size:
            continue
        number = np.zeros(pieces.sizes.size, dtype=np.int32)
        number[islands] = len(origin) + np.arange(islands.size)
        stray, numbers = pieces.pick(number > 0)
        place = [axis + side.start for axis, side in zip(np.unravel_index(stray, part.shape), box, strict=True)]
        where.append(np.ravel_multi_index(tuple(place), work.shape))
        label.append(number[numbers])
        origin += [code] * islands.size
    flat = np.concatenate(where)
    order = np.argsort(flat)
    return _Pieces(flat[order], np.concatenate(label)[order], np.array(origin, dtype=np.uint8))


def _equal_to(part: NDArray[np.uint8], code: int) -> Callable[[slice], NDArray[np.bool_]]:
    return lambda span: part[span] == code


def _fill_holes(work: NDArray[np.uint8], voxel_ml: float) -> PostprocessStep:
    """Give enclosed background to the lobe that it touches most; a hole in the airway alone stays."""
    found = find_pieces(_equal_to(work, 0), work.shape)
    enclosed = ~found.on_edge  # what reaches the rim is no hole
    enclosed[0] = False
    where, numbers = found.pick(enclosed)
    number = np.cumsum(enclosed, dtype=np.int32)
    pieces = _Pieces(where, number[numbers], np.zeros(int(enclosed.sum()) + 1, dtype=np.uint8))
    taken = _neighbour(work, pieces, 0.0)
    work.reshape(-1)[where] = taken[pieces.label]
    return _step("holes-filled", pieces, taken, taken > 0, voxel_ml)


def _neighbour(work: NDArray[np.uint8], pieces: _Pieces, least_share: float) -> NDArray[np.uint8]:
    """By number, the lobe that holds most of its outer faces, or 0 where that is less than ``least_share`` of them."""
    count = pieces.origin.size
    contact = np.zeros((count, AIRWAY + 1), dtype=np.int64)
    if count == 1:
        return np.zeros(count, dtype=np.uint8)
    _, height, width = work.shape
    label = pieces.label
    for stride in (1, width, height * width):
        for beside in (pieces.where - stride, pieces.where + stride):
            outer = pieces.label_at(beside) != label
            keys = label[outer].astype(np.int64) * (AIRWAY + 1) + work.reshape(-1)[beside[outer]]
            contact += np.bincount(keys, minlength=contact.size).reshape(contact.shape)
    faces = contact.sum(axis=1)
    contact[:, [0, AIRWAY]] = 0
    best = contact.argmax(axis=1)
    held = contact[np.arange(count), best]
    return np.where((held > 0) & (held >= least_share * faces), best, 0).astype(np.uint8)


def _step(
    name: str, pieces: _Pieces, taken: NDArray[np.uint8], chosen: NDArray[np.bool_], voxel_ml: float
) -> PostprocessStep:
    sizes = np.where(chosen, pieces.sizes, 0)
    gained = np.bincount(taken, weights=sizes, minlength=AIRWAY + 1)
    lost = np.bincount(pieces.origin, weights=sizes, minlength=AIRWAY + 1)
    change = {
        lobe.abbreviation: float((gained - lost)[lobe.code] * voxel_ml)
        for lobe in LOBES
        if gained[lobe.code] != lost[lobe.code]
    }
    voxels = int(sizes.sum())
    return PostprocessStep(name, int((sizes > 0).sum()), voxels, voxels * voxel_ml, change)
