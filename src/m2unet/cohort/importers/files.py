"""Finding the files and tables of a data set, wherever its archive was unpacked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from m2unet.cohort.table import read_records
from m2unet.errors import ManifestError

SCAN_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")


def base_folder(root: Path, *markers: str) -> Path:
    """The folder that holds all markers: the one given, or one a level below, as archives unpack.

    Args:
        root: what the user gave.
        markers: paths relative to the folder looked for.

    Raises:
        ManifestError: if there is no such folder, naming what was looked for.
    """
    if not root.is_dir():
        raise ManifestError(f"The data set {root} cannot be read", ["no such folder"], mend="give its unpacked folder")
    below = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, *below):
        if all((folder / marker).exists() for marker in markers):
            return folder
    raise ManifestError(
        f"The folder {root.name} does not hold this data set",
        [f"{marker!r} is neither in it nor one level below" for marker in markers],
        mend="give the folder of the unpacked data set; its page in the documentation shows the layout",
    )


def stem(path: Path) -> str:
    """The file's name without the ending of a scan, ``.nii.gz`` included."""
    lower = path.name.lower()
    suffix = next((s for s in SCAN_SUFFIXES if lower.endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def scans_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Scan files of a folder, in order; with ``deep`` those of its subfolders, too. Hidden files are passed over."""
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.is_file() and path.name.lower().endswith(SCAN_SUFFIXES) and not path.name.startswith(".")
    )


def by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Paths by :func:`stem`."""
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        grouped.setdefault(stem(path), []).append(path)
    return grouped


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a table by column name, in lower case.

    Args:
        path: CSV with commas, semicolons or tabs.
        columns: those that must be there.

    Raises:
        ManifestError: if it cannot be read or a column is missing.
    """
    records = read_records(path, kind="table")
    header = [cell.strip().lower() for cell in records[0][1]]
    missing = [column for column in columns if column.lower() not in header]
    if missing:
        raise ManifestError(
            f"The table {path.name} has another layout",
            [f"missing column {column!r}" for column in missing],
            mend=f"its columns are {', '.join(header)}",
        )
    return [dict(zip(header, (cell.strip() for cell in cells), strict=False)) for _, cells in records[1:]]
