"""TotalSegmentator's default output: a folder with one binary file for each organ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m2unet.anatomy import LOBE_BY_CODE, LOBES
from m2unet.cohort.mask_files.grid import check_grid
from m2unet.cohort.mask_files.merge import Merged
from m2unet.cohort.mask_files.names import codes_by_name
from m2unet.cohort.mask_files.segments import LabelFile
from m2unet.cohort.mask_files.values import whole_numbers
from m2unet.ct.findings import QualityError
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")


def lobe_files(folder: Path) -> dict[int, Path]:
    """The folder's files of lobes by our code, e.g. ``lung_upper_lobe_left.nii.gz``; other organs are passed over.

    Raises:
        ScanError: two files of one lobe.
    """
    files = [
        p for p in sorted(folder.iterdir()) if p.is_file() and p.name.lower().endswith(ENDINGS) and p.name[0] != "."
    ]
    found: dict[int, Path] = {}
    for path, code in zip(files, codes_by_name([_stem(path) for path in files]), strict=True):
        if code not in LOBE_BY_CODE or code is None:
            continue
        if code in found:
            raise ScanError(
                f"The folder {folder.name} has two files of one lobe", found=f"{found[code].name} and {path.name}"
            )
        found[code] = path
    return found


def read_organ_folder(folder: Path, volume: Volume, *, lacking: bool = False) -> LabelFile:
    """Read the lobes of a folder of one file an organ.

    Args:
        folder: e.g. TotalSegmentator's output.
        volume: the scan.
        lacking: accept a folder without the file of a lobe.

    Raises:
        ScanError: files are missing, or a file is no binary mask on the scan's grid.
    """
    files = lobe_files(folder)
    missing = [lobe.abbreviation for lobe in LOBES if lobe.code not in files]
    if not files or (missing and not lacking):
        raise ScanError(
            f"The folder {folder.name} does not hold the lobes of a scan",
            found=f"files of {', '.join(LOBE_BY_CODE[code].abbreviation for code in files) or 'no lobe'}",
            expected="lung_upper_lobe_left, lung_lower_lobe_left, lung_upper_lobe_right, lung_middle_lobe_right and "
            "lung_lower_lobe_right, each .nii.gz, as TotalSegmentator writes them (empty where a lobe is absent)",
        )
    return merge_files([(files[code], code) for code in sorted(files)], volume, folder.name)


def merge_files(parts: Sequence[tuple[Path, int]], volume: Volume, name: str) -> LabelFile:
    """One mask of binary files; a voxel of two lobes belongs to the first.

    Args:
        parts: each file with our code of its lobe.
        volume: the scan.
        name: of the whole, for messages.

    Raises:
        ScanError: a file is no binary mask on the scan's grid, or lobes overlap.
    """
    merged = Merged(volume.shape, name)
    for path, code in parts:
        merged.add(read_binary(path, volume), code)
    return merged.file({code: _stem(path) for path, code in parts})


def read_binary(path: Path, volume: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """A file of one structure: 0 and one other value, 1 as a rule, 255 as some tools write.

    Raises:
        ScanError: unreadable, another grid, or more than two values.
    """
    try:
        raw = read_raw(path)
    except QualityError as error:
        raise ScanError(f"The mask {path.name} cannot be read", found=error.found, mend=error.mend) from None
    except OSError as error:
        raise ScanError(f"The mask {path.name} cannot be read", found=error.strerror) from None
    mask = from_source(whole_numbers(raw.array, path.name), raw.spacing_mm, raw.origin_mm, raw.direction)
    check_grid(mask, volume, path.name)
    highest = int(mask.array.max())
    if mask.array.min() < 0 or highest not in (0, 1, 255) or np.count_nonzero(mask.array % max(highest, 1)):
        values = np.unique(mask.array)[:8].tolist()
        raise ScanError(f"The mask {path.name} is not binary", found=f"values {values}", expected="0, 1")
    return mask.array > 0


def _stem(path: Path) -> str:
    lower = path.name.lower()
    return path.name[: -len(next((e for e in ENDINGS if lower.endswith(e)), path.suffix)) or None]
