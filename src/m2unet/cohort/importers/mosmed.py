"""MosMedData COVID19_1110: ``studies/CT-{0..4}/study_NNNN.nii.gz`` and ``masks/study_NNNN_mask.nii.gz``."""

from __future__ import annotations

import re
from pathlib import Path

from m2unet.cohort.importers.files import base_folder, scans_in, stem
from m2unet.cohort.importers.items import DataSet, Fault, Found, ImportOptions, Item

EXTENT = {0: "none", 1: "below 25 %", 2: "25-50 %", 3: "50-75 %", 4: "above 75 %"}
"""Involved lung of each grade."""


def find(root: Path, options: ImportOptions) -> Found:
    """All studies, severe from the grade of ``options.severe_from`` on.

    Raises:
        ManifestError: if the folder has another layout.
    """
    base = base_folder(root, "studies")
    masks = {stem(p).removesuffix("_mask"): p for p in scans_in(base / "masks")} if (base / "masks").is_dir() else {}
    items: list[Item] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for folder in sorted(path for path in (base / "studies").iterdir() if path.is_dir()):
        match = re.fullmatch(r"CT-([0-4])", folder.name)
        if match is None:
            faults.append(Fault(folder.name, "it is none of the folders CT-0 to CT-4"))
            continue
        grade = int(match[1])
        for path in scans_in(folder):
            name = stem(path)
            if name in seen:
                faults.append(Fault(name, f"it lies in {seen[name]} and in {folder.name}; the first is taken"))
                continue
            seen[name] = folder.name
            severity = int(grade >= options.severe_from)
            items.append(Item(name, name, path, lesions=masks.get(name), severity=severity, site="MosMed"))
    faults += [Fault(masks[name].name, "there is no study of this mask") for name in sorted(set(masks) - set(seen))]
    return Found(tuple(items), tuple(faults), label(options.severe_from))


def label(severe_from: int) -> str:
    """What severity means."""
    return (
        f"MosMed's CT grade: severe from CT-{severe_from} on (involved lung {EXTENT[severe_from]} and more); what a "
        "radiologist saw on the CT, not the clinical grade; CT-0 shows no pneumonia"
    )


DATA_SET = DataSet("mosmed", "MosMedData COVID19_1110", find, frozenset({"severe_from"}))
