"""What an importer finds in a public data set before any voxel is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from m2unet.anatomy import CodeSystem
from m2unet.cohort.cells import Sex


@dataclass(frozen=True)
class CodedMask:
    """One file, or folder of one file a lobe, that holds all lobes, in the codes of some tool."""

    path: Path
    codes: CodeSystem


@dataclass(frozen=True)
class BinaryMasks:
    """One file a lobe; ``parts`` pairs each file with our code of the lobe."""

    parts: tuple[tuple[Path, int], ...]


@dataclass(frozen=True)
class Item:
    """One scan of a data set.

    Attributes:
        scan_id: the data set's own name of it.
        patient_id: the data set's patient, or the scan where the data set does not say.
        image: the CT as published.
        lobes: where its lobes come from, None without.
        lesions: lesion mask as published, None without.
        severity: 1, 0 or None, by the rule of :attr:`Found.label`.
        site, age, sex: as in the manifest.
        remarks: what the user should know of it.
    """

    scan_id: str
    patient_id: str
    image: Path
    lobes: CodedMask | BinaryMasks | None = None
    lesions: Path | None = None
    severity: int | None = None
    site: str | None = None
    age: float | None = None
    sex: Sex | None = None
    remarks: tuple[str, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Every file it is made from."""
        lobes: tuple[Path, ...] = ()
        if isinstance(self.lobes, CodedMask):
            path = self.lobes.path
            lobes = tuple(sorted(p for p in path.rglob("*") if p.is_file())) if path.is_dir() else (path,)
        elif self.lobes is not None:
            lobes = tuple(path for path, _ in self.lobes.parts)
        return (self.image, *lobes, *((self.lesions,) if self.lesions else ()))


@dataclass(frozen=True)
class Fault:
    """Something of a data set that cannot be imported, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a data set's folder holds.

    Attributes:
        items: scans to import.
        faults: what is broken or missing.
        label: what severity means in this data set, None if it has none.
    """

    items: tuple[Item, ...]
    faults: tuple[Fault, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class ImportOptions:
    """Choices of the user; each data set names those that concern it.

    Attributes:
        severe_from: lowest CT grade (1-4) that counts as severe.
        images: folder of the CTs where they do not lie with the masks.
        codes: whose codes the label maps of a folder of masks use; named segments say it themselves.
        min_lobes: fewest lobes a scan must show to be imported.
        rescale_8bit: map 8-bit volumes of a known window back to HU.
    """

    severe_from: int = 3
    images: Path | None = None
    codes: CodeSystem = "lungmask"
    min_lobes: int = 5
    rescale_8bit: bool = False


Option = Literal["severe_from", "images", "codes", "min_lobes", "rescale_8bit"]


@dataclass(frozen=True)
class DataSet:
    """A public data set that can be imported.

    Attributes:
        name: as on the command line.
        title: for people.
        find: reads its folder: names and tables, no voxels.
        options: fields of :class:`ImportOptions` that concern it.
        window_hu: the window of its 8-bit volumes, if it has any.
    """

    name: str
    title: str
    find: Callable[[Path, ImportOptions], Found]
    options: frozenset[Option] = frozenset()
    window_hu: tuple[float, float] | None = None
