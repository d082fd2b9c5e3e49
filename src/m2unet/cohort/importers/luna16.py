"""Lobes of LUNA16 (Tang et al. 2019): ``annotations/<SeriesUID>_LobeSegmentation.nrrd``, ``subset*/<UID>.mhd``."""

from __future__ import annotations

from pathlib import Path

from m2unet.cohort.importers.files import base_folder, by_stem, scans_in, stem
from m2unet.cohort.importers.items import CodedMask, DataSet, Fault, Found, ImportOptions, Item

ENDING = "_LobeSegmentation"


def find(root: Path, options: ImportOptions) -> Found:
    """Annotations whose CT is found below ``options.images``, or else below the folder itself.

    Raises:
        ManifestError: if there is no folder of annotations.
    """
    base = base_folder(root, "annotations")
    images = by_stem(p for p in scans_in(options.images or base, deep=True) if not stem(p).endswith(ENDING))
    items, faults = [], []
    for path in scans_in(base / "annotations"):
        uid = stem(path).removesuffix(ENDING)
        there = images.get(uid, [])
        if not stem(path).endswith(ENDING):
            faults.append(Fault(path.name, f"its name does not end in {ENDING}"))
        elif not there:
            faults.append(Fault(uid, "its CT (subset*/<SeriesUID>.mhd) is missing; --images names another folder"))
        elif len(there) > 1:
            faults.append(Fault(uid, f"{len(there)} CTs have its name"))
        else:
            items.append(Item(uid, uid, there[0], lobes=CodedMask(path, "luna16"), site="LUNA16"))
    return Found(tuple(items), tuple(faults))


DATA_SET = DataSet("luna16-lobes", "Lobes of LUNA16 (Tang et al. 2019)", find, frozenset({"images", "min_lobes"}))
