"""Several manifests made one: ids kept distinct by a prefix, what different manifests know of one image joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from m2unet.cohort.importers.run import import_folder
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from m2unet.errors import ManifestError

_KNOWN = ("lobes", "severity", "grade", "site", "age", "sex", "date", "lesions")


@dataclass(frozen=True)
class Combined:
    """What combining came to.

    Attributes:
        rows: of the new manifest.
        joined: scan ids of rows made from several manifests, because these name the same image.
        warnings: what deserves a second look.
    """

    rows: tuple[ManifestRow, ...]
    joined: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def combine(manifests: Sequence[str | Path], out: str | Path, *, prefixes: Sequence[str] | None = None) -> Combined:
    """Combine manifests into one.

    Every scan and patient id gets its manifest's prefix and a hyphen, so patients of different manifests stay apart.
    Rows that name the same image file become one row with the first one's ids: lobes from one, severity from another.
    Columns of the user's own are kept; where two rows of one image differ in one, the first one's value stays and a
    warning says so.

    Args:
        manifests: two or more manifests.
        out: the manifest to write.
        prefixes: one a manifest; the files' stems if None.

    Raises:
        ManifestError: faulty manifests, prefixes that are not distinct, or rows of one image that contradict.
    """
    paths = [Path(path) for path in manifests]
    names = list(prefixes) if prefixes is not None else [path.stem for path in paths]
    _check(paths, names)
    read = [read_manifest(path) for path in paths]
    rows: dict[Path, ManifestRow] = {}
    joined: list[str] = []
    faults: list[str] = []
    differing: list[str] = []
    for name, manifest in zip(names, read, strict=True):
        patients = _patients(name, manifest, rows, faults)
        for row in manifest.rows:
            image = row.image.resolve()
            if image not in rows:
                own = patients.get(row.patient_id, f"{name}-{row.patient_id}")
                rows[image] = replace(row, scan_id=f"{name}-{row.scan_id}", patient_id=own)
                continue
            first = rows[image]
            rows[image] = _joined(first, row, f"{name}: {row.scan_id}", faults)
            differing += _own_differences(first, row, f"{name}: {row.scan_id}")
            joined.append(first.scan_id)
    if faults:
        raise ManifestError("The manifests contradict each other", faults, mend="correct one of them")
    write_manifest(rows.values(), out)
    return Combined(tuple(rows.values()), tuple(dict.fromkeys(joined)), (*_label_warnings(read), *differing))


def _check(paths: Sequence[Path], names: Sequence[str]) -> None:
    faults = []
    if len(paths) < 2:
        faults.append(f"{len(paths)} manifest(s); at least two are needed")
    if len(names) != len(paths):
        faults.append(f"{len(names)} prefix(es) for {len(paths)} manifests")
    faults += [f"the prefix {name!r} is used twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if faults:
        raise ManifestError("The manifests cannot be combined", faults, mend="give --prefix once for each manifest")


def _patients(name: str, manifest: Manifest, rows: dict[Path, ManifestRow], faults: list[str]) -> dict[str, str]:
    """Patients of this manifest who are already there, because one of their images is."""
    known: dict[str, str] = {}
    for row in manifest.rows:
        there = rows.get(row.image.resolve())
        if there is not None and known.setdefault(row.patient_id, there.patient_id) != there.patient_id:
            faults.append(f"{name}: {row.scan_id} and another scan of its patient belong to two patients elsewhere")
    return known


def _joined(first: ManifestRow, second: ManifestRow, where: str, faults: list[str]) -> ManifestRow:
    """Everything either row knows."""
    for column in _KNOWN:
        mine, theirs = getattr(first, column), getattr(second, column)
        if theirs is None or mine == theirs or column == "site":
            continue
        if mine is not None:
            faults.append(f"{where}: {column} differs from {first.scan_id}, which names the same image")
        first = replace(first, **{column: theirs})
    known = {name: value for name, value in first.extra.items() if value}
    first = replace(first, extra={**dict(first.extra), **second.extra, **known})
    return first if first.site is not None else replace(first, site=second.site)


def _own_differences(first: ManifestRow, second: ManifestRow, where: str) -> list[str]:
    return [
        f"{where}: column {name!r} differs from {first.scan_id}, which names the same image; the first value is kept"
        for name, value in second.extra.items()
        if value and first.extra.get(name) and first.extra[name] != value
    ]


def _label_warnings(manifests: Sequence[Manifest]) -> list[str]:
    """Severities that do not mean the same should not be trained together unnoticed."""
    meanings: dict[str, list[str]] = {}
    for manifest in manifests:
        if manifest.with_severity():
            meanings.setdefault(_label(manifest.path), []).append(manifest.path.name)
    if len(meanings) < 2:
        return []
    said = "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in meanings.items())
    return [f"severity does not mean the same everywhere ({said})"]


def _label(path: Path) -> str:
    try:
        label = json.loads((import_folder(path) / "report.json").read_text(encoding="utf-8"))["label"]
    except (OSError, ValueError, KeyError):
        return "by its own definition"
    return str(label)
