"""A folder of lobe masks made by lungmask or another tool, paired with scans of the same name."""

from __future__ import annotations

from pathlib import Path

from m2unet.cohort.importers.files import SCAN_SUFFIXES, base_folder, by_stem, scans_in, stem
from m2unet.cohort.importers.items import CodedMask, DataSet, Fault, Found, ImportOptions, Item
from m2unet.cohort.masks import is_mask_folder
from m2unet.errors import ManifestError

ENDINGS = ("_lungmask", "_lobes", "_mask", "_seg", ".seg")
"""What a mask's name may add to its scan's."""


def find(root: Path, options: ImportOptions) -> Found:
    """Masks with their scans: ``masks/`` and ``images/`` in the folder, or masks there and scans in ``options.images``.

    Raises:
        ManifestError: if there is no folder of masks, or none of scans.
    """
    base = base_folder(root)
    masks = base / "masks" if (base / "masks").is_dir() else base
    images = options.images or base / "images"
    if not images.is_dir():
        raise ManifestError(
            f"The scans of {root.name} are missing",
            [f"no folder {images}"],
            mend="put them into images/ beside masks/, or name their folder with --images",
        )
    scans = by_stem(path for path in images.iterdir() if _is_scan(path) and path != masks)
    items, faults = [], []
    taken: dict[str, str] = {}
    for path in _masks_in(masks, images):
        name = _scan_of(stem(path) if path.is_file() else path.name, scans)
        there = scans.get(name, [])
        if not there:
            faults.append(Fault(path.name, f"no scan of its name in {images.name}/"))
        elif len(there) > 1:
            faults.append(Fault(path.name, f"{len(there)} scans have its name"))
        elif name in taken:
            faults.append(Fault(path.name, f"its scan already has the mask {taken[name]}"))
        else:
            taken[name] = path.name
            named = path.is_dir() or path.name.lower().endswith((".seg.nrrd", ".dcm"))
            items.append(Item(name, name, there[0], lobes=CodedMask(path, "auto" if named else options.codes)))
    faults += [Fault(scans[name][0].name, "it has no mask") for name in sorted(set(scans) - set(taken))]
    return Found(tuple(items), tuple(faults))


def _masks_in(folder: Path, images: Path) -> list[Path]:
    """Label maps, DICOM segmentations, and folders of one file a lobe."""
    others = [
        path
        for path in sorted(folder.iterdir())
        if ((path.name.lower().endswith(".dcm") and path.is_file()) or (path != images and is_mask_folder(path)))
        and not path.name.startswith(".")
    ]
    return sorted([*scans_in(folder), *others])


def _is_scan(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.name.lower().endswith(SCAN_SUFFIXES))


def _scan_of(name: str, scans: dict[str, list[Path]]) -> str:
    shorter = (name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending))
    return next((candidate for candidate in (name, *shorter) if candidate in scans), name)


DATA_SET = DataSet(
    "lungmask-masks", "Masks made by lungmask or another tool", find, frozenset({"images", "codes", "min_lobes"})
)
