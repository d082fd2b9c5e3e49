"""TotalSegmentator's training set: ``sXXXX/ct.nii.gz``, a mask a structure in ``segmentations/``, ``meta.csv``."""

from __future__ import annotations

from pathlib import Path

from m2unet.anatomy import LOBE_BY_ABBREVIATION
from m2unet.cohort.cells import Sex
from m2unet.cohort.importers.files import base_folder, read_table
from m2unet.cohort.importers.items import BinaryMasks, DataSet, Fault, Found, ImportOptions, Item
from m2unet.errors import ManifestError

FILES = {
    "RUL": "lung_upper_lobe_right.nii.gz",
    "RML": "lung_middle_lobe_right.nii.gz",
    "RLL": "lung_lower_lobe_right.nii.gz",
    "LUL": "lung_upper_lobe_left.nii.gz",
    "LLL": "lung_lower_lobe_left.nii.gz",
}
_SEX: dict[str, Sex] = {"m": "M", "f": "F"}


def find(root: Path, options: ImportOptions) -> Found:
    """Subjects with a CT and all five lobe files; which lobes they show is seen when the masks are read.

    Raises:
        ManifestError: if there is no subject, or the table has another layout.
    """
    base = base_folder(root)
    if not any(base.glob("*/ct.nii.gz")):
        base = next((folder for folder in sorted(base.iterdir()) if any(folder.glob("*/ct.nii.gz"))), base)
    folders = sorted(p for p in base.iterdir() if p.is_dir() and ((p / "ct.nii.gz").exists() or _masked(p)))
    if not folders:
        raise ManifestError(f"The folder {root.name} does not hold this data set", ["no sXXXX/ct.nii.gz in it"])
    faults = []
    facts: dict[str, dict[str, str]] = {}
    if (base / "meta.csv").exists():
        facts = {row["image_id"]: row for row in read_table(base / "meta.csv", ("image_id",))}
    else:
        faults.append(Fault("meta.csv", "it is missing: ages, sexes and study types stay unknown"))
    items = []
    for folder in folders:
        lacking = [name for name in FILES.values() if not (folder / "segmentations" / name).is_file()]
        if not (folder / "ct.nii.gz").exists():
            faults.append(Fault(folder.name, "ct.nii.gz is missing"))
        elif lacking:
            faults.append(Fault(folder.name, f"{len(lacking)} of 5 lobe masks are missing: {', '.join(lacking)}"))
        else:
            items.append(_item(folder, facts.get(folder.name, {})))
    return Found(tuple(items), tuple(faults))


def _masked(folder: Path) -> bool:
    return (folder / "segmentations").is_dir()


def _item(folder: Path, facts: dict[str, str]) -> Item:
    parts = tuple((folder / "segmentations" / name, LOBE_BY_ABBREVIATION[lobe].code) for lobe, name in FILES.items())
    study, institute = facts.get("study_type"), facts.get("institute")
    return Item(
        folder.name,
        folder.name,
        folder / "ct.nii.gz",
        lobes=BinaryMasks(parts),
        site=f"TotalSegmentator {institute}" if institute else "TotalSegmentator",
        age=_age(facts.get("age", "")),
        sex=_SEX.get(facts.get("gender", "").lower()),
        remarks=(f"study type: {study}",) if study else (),
    )


def _age(text: str) -> float | None:
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age <= 120 else None


DATA_SET = DataSet("totalsegmentator", "TotalSegmentator v2 training set", find, frozenset({"min_lobes"}))
