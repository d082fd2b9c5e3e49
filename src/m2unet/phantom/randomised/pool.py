"""A pool of rendered chests on disk, drawn once; slabs of invented images are cut from it much faster than rendered.

One chest is a pair of NumPy files read by memory map: ``NNNN-hu.npy`` int16 ``[z, y, x]`` and ``NNNN-maps.npy`` uint8
``[3, z, y, x]`` (lobes, distance from the nearest fissure, depth below the pleura), on a grid of 3 x 2 x 2 mm. Chest
*i* of a pool depends on the seed and *i* alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]  # comes with scikit-learn
from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]
from numpy.typing import NDArray

from m2unet.errors import RunError, WorkerError
from m2unet.files import atomic_path, write_json
from m2unet.phantom.anatomy import Anatomy, Grid
from m2unet.phantom.randomised.anatomy import AnatomyKnobs, draw_wide_chest
from m2unet.processes import describe_exit, named_exit_code

SPACING_MM = (3.0, 2.0, 2.0)
BELOW, ABOVE = 0.40, 0.30
"""How far below and above the lungs a chest is kept, by the lungs' height."""
FISSURE_STEP_MM, PLEURA_STEP_MM = 0.1, 0.25
"""Millimetres a grey value of the two distance maps; 255 is that far or farther."""
INDEX = "pool.json"


@dataclass(frozen=True)
class Chest:
    """One chest of a pool.

    Attributes:
        hu: ``[z, y, x]`` int16, healthy, without fissures' sheets, noise or table.
        maps: ``[3, z, y, x]`` uint8: lobes (6 airway), fissure distance, pleura depth.
        base, apex: height of the lungs' lowest and highest slice, in slices.
        step_mm: distance of its slices.
    """

    hu: NDArray[np.int16]
    maps: NDArray[np.uint8]
    base: float
    apex: float
    step_mm: float = SPACING_MM[0]


def draw_chest(seed: int, number: int, knobs: AnatomyKnobs | None = None) -> Chest:
    """Draw and render chest ``number`` of the pool with this seed."""
    wide = draw_wide_chest(np.random.default_rng([seed, number]), knobs)
    anatomy = Anatomy(wide.parameters)
    height = anatomy.lung_extent_mm[1][0] - anatomy.lung_extent_mm[0][0]
    low, high = anatomy.body_extent_mm
    bottom = max(low[0], anatomy.lung_extent_mm[0][0] - BELOW * height)
    top = min(high[0], anatomy.lung_extent_mm[1][0] + ABOVE * height)
    grid = Grid.around((bottom, *low[1:]), (top, *high[1:]), SPACING_MM)
    tissues = anatomy.render(grid, inspiration=wide.inspiration)
    hu = tissues.hu
    inside = tissues.lobes > 0
    if wide.inspiration < 1:  # undo the rendered density: each slab draws its own
        hu = _base_density(hu, inside & (tissues.lobes < 6), wide.inspiration)
    maps = np.stack(
        [
            tissues.lobes,
            np.minimum(tissues.fissure_mm / FISSURE_STEP_MM, 255).astype(np.uint8),
            np.minimum(tissues.pleura_mm / PLEURA_STEP_MM, 255).astype(np.uint8),
        ]
    )
    slices = np.flatnonzero(((tissues.lobes > 0) & (tissues.lobes < 6)).any(axis=(1, 2)))
    return Chest(np.rint(hu).astype(np.int16), maps, float(slices[0]), float(slices[-1]))


def _base_density(hu: NDArray[np.float32], lung: NDArray[np.bool_], inspiration: float) -> NDArray[np.float32]:
    from m2unet.phantom.painter import FULL_BREATH_AIR
    from m2unet.phantom.randomised.anatomy import BASE_HU

    rendered = (BASE_HU + 1000) / (1 - (1 - inspiration) * FULL_BREATH_AIR) - 1000
    share = np.clip((hu[lung] - rendered) / (42.0 - rendered), -0.05, 1.3)
    out = hu.copy()
    out[lung] = BASE_HU + share * (42.0 - BASE_HU)
    return out


def build_pool(
    folder: Path,
    count: int,
    seed: int,
    knobs: AnatomyKnobs | None = None,
    *,
    workers: int = 0,
    done: Callable[[int], None] = lambda _: None,
) -> ChestPool:
    """Render what a pool still lacks; an interrupted call goes on where it was.

    Args:
        folder: of the pool.
        count: chests wanted.
        seed: of the pool.
        knobs: of the chests; the defaults if None.
        workers: processes that render; with 0 the calling one does.
        done: called with the number of chests that are there.

    Raises:
        RunError: if the folder holds a pool of another seed or other knobs.
        WorkerError: if a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps({"seed": seed, "knobs": asdict(knobs or AnatomyKnobs())}))  # tuples become lists
    index = folder / INDEX
    if index.is_file():
        found = json.loads(index.read_text("utf-8"))
        if {key: found.get(key) for key in wanted} != wanted:
            raise RunError("The folder holds another pool of chests", found=folder, mend="choose another folder")
    else:
        write_json(index, wanted)
    missing = [number for number in range(count) if not has_chest(folder, number)]
    done(count - len(missing))
    tasks = (delayed(_render)(folder, seed, number, knobs) for number in missing)
    try:
        for ready, _ in enumerate(Parallel(n_jobs=max(workers, 1), return_as="generator_unordered")(tasks), 1):
            done(count - len(missing) + ready)
    except BrokenProcessPool as error:
        raise WorkerError(
            f"A process that draws chests {describe_exit(named_exit_code(error))}",
            mend="call again with fewer workers; what is finished is kept",
        ) from None
    if workers > 1 and missing:
        get_reusable_executor().shutdown(wait=True)  # else idle workers keep their memory for minutes
    return ChestPool(folder, count)


def _render(folder: Path, seed: int, number: int, knobs: AnatomyKnobs | None) -> None:
    write_chest(folder, number, draw_chest(seed, number, knobs))


def has_chest(folder: Path, number: int) -> bool:
    """Whether a pool holds this chest, whole."""
    return _file(folder, number, "maps").is_file()


def write_chest(folder: Path, number: int, chest: Chest) -> None:
    """Write one chest of a pool, its maps last."""
    _save(_file(folder, number, "hu"), chest.hu)
    write_json(_file(folder, number, "range").with_suffix(".json"), [chest.base, chest.apex, chest.step_mm])
    _save(_file(folder, number, "maps"), chest.maps)


class ChestPool:
    """Chests ``first`` to ``first + count - 1`` of a pool on disk.

    Raises:
        RunError: if the folder holds fewer.
    """

    def __init__(self, folder: Path, count: int, first: int = 0) -> None:
        missing = [n for n in range(first, first + count) if not has_chest(folder, n)]
        if missing:
            raise RunError("The pool lacks chests", found=f"{count - len(missing)} of {count}", mend="build it first")
        self.folder, self.count, self.first = folder, count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Chest:
        number = self.first + range(self.count)[index]
        base, apex, step_mm = json.loads(_file(self.folder, number, "range").with_suffix(".json").read_text("utf-8"))
        hu, maps = (np.load(_file(self.folder, number, what), mmap_mode="r") for what in ("hu", "maps"))
        return Chest(hu, maps, base, apex, step_mm)


def _file(folder: Path, number: int, what: str) -> Path:
    return folder / f"{number:04d}-{what}.npy"


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
