"""COVID-19-CT-Seg (Ma et al. 2020): twenty CTs with masks of both lungs and of infection; no lobes, no severity."""

from __future__ import annotations

import re
from pathlib import Path

from m2unet.cohort.importers.files import base_folder, by_stem, scans_in
from m2unet.cohort.importers.items import DataSet, Fault, Found, ImportOptions, Item
from m2unet.errors import ManifestError

IMAGES = ("COVID-19-CT-Seg_20cases", "ct_scans", "20_ncov_scan")
LESIONS = ("Infection_Mask", "infection_mask")
WINDOW_HU = (-1250.0, 250.0)
"""The lung window to which the volumes from Radiopaedia were cut before they were scaled to 0-255."""


def find(root: Path, options: ImportOptions) -> Found:
    """All volumes with their infection masks, paired under the names of the masks.

    Raises:
        ManifestError: if the folder has another layout.
    """
    base = base_folder(root)
    folders = [_folder(base, names) for names in (IMAGES, LESIONS)]
    if folders[0] is None:
        raise ManifestError(
            f"The folder {root.name} does not hold this data set",
            [f"none of {', '.join(IMAGES)} in it"],
            mend="unpack COVID-19-CT-Seg_20cases.zip and Infection_Mask.zip side by side",
        )
    lesions = {short(name): p for name, p in by_stem(scans_in(folders[1], deep=True)).items()} if folders[1] else {}
    items, faults = [], []
    names = set()
    for name, paths in by_stem(scans_in(folders[0], deep=True)).items():
        key = short(name)
        names.add(key)
        mask = lesions.get(key, [])
        if len(paths) > 1 or len(mask) > 1:
            faults.append(Fault(key, "several files have its name"))
            continue
        if not mask:
            faults.append(Fault(key, "its infection mask is missing; imported without one"))
        items.append(Item(key, patient(key), paths[0], lesions=mask[0] if mask else None, site=key.split("_")[0]))
    faults += [Fault(name, "there is no CT of this infection mask") for name in sorted(set(lesions) - names)]
    return Found(tuple(items), tuple(faults))


def short(name: str) -> str:
    """The name the masks have: ``coronacases_001``, ``radiopaedia_10_85902_1``."""
    return name.replace("_org", "").replace("covid-19-pneumonia-", "").removesuffix("-dcm")


def patient(key: str) -> str:
    """Radiopaedia's case number comes first; a case's studies and series are one patient."""
    match = re.fullmatch(r"(radiopaedia_\d+)_\d+_\d+", key)
    return match[1] if match else key


def _folder(base: Path, names: tuple[str, ...]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)


DATA_SET = DataSet(
    "covid-ct-seg", "COVID-19-CT-Seg (Zenodo 3757476)", find, frozenset({"rescale_8bit"}), window_hu=WINDOW_HU
)
