"""The store: prepared scans on disk, opened without loading them.

A store is a folder with ``store.json`` and one folder a scan, named by its ``scan_id``::

    STORE/store.json          schema, version, how the scans were prepared
    STORE/<scan_id>/ct.npy    int16 HU [z, y, x], cropped to the body
    STORE/<scan_id>/lobes.npy uint8 lobe codes on the same grid, where the scan has a mask
    STORE/<scan_id>/scan.json spacing, reference boxes, findings, geometry, hashes

Plain ``.npy`` files are memory-mapped: a random patch costs the reading of its own pages (``benchmarks/store.py``
compares Blosc2 and Zarr). The store holds neither labels nor patients nor paths: those stay in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from m2unet.anatomy import CODE_SYSTEMS, CodeSystem
from m2unet.cohort.manifest import ManifestRow
from m2unet.config import PrepareConfig
from m2unet.ct.findings import Finding
from m2unet.ct.prepare import PreparedScan
from m2unet.errors import StoreError
from m2unet.files import write_text

STORE_SCHEMA = "m2unet/store"
SCAN_SCHEMA = "m2unet/prepared-scan"
VERSION = 1
"""Of both files. A change of the preparation itself that old scans must not be mixed with raises it, too."""


@dataclass(frozen=True)
class ScanRecord:
    """What ``scan.json`` says of a prepared scan.

    Attributes:
        fingerprint: of the source files and of how their lobe codes were read.
        content_sha256: of shape and HU values of ``ct.npy``: equal for the same prepared image under two names.
        shape: ``(z, y, x)`` of the stored array.
        spacing_mm: ``(z, y, x)``.
        references: boxes ``[[z, y, x], [z, y, x]]`` in stored voxels; ``lungs`` is None where none were found.
        lobes: codes that occur in ``lobes.npy``, None without a mask.
        findings: quality findings of the scan.
        geometry: the volume's own shape, spacing (z, y, x), LPS origin (x, y, z) and direction, and the window and
            scale of :class:`m2unet.ct.prepare.PreparedScan` that lead back to it.
        prepare: the configuration it was prepared with.
    """

    fingerprint: str
    content_sha256: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    references: Mapping[str, list[list[float]] | None]
    lobes: list[int] | None
    findings: tuple[Finding, ...]
    geometry: Mapping[str, Any]
    prepare: PrepareConfig

    def to_json(self) -> str:
        """The text of ``scan.json``."""
        values = {"schema": SCAN_SCHEMA, "version": VERSION, **asdict(self)}
        values["prepare"] = self.prepare.model_dump(mode="json")
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ScanRecord:
        """Read what :meth:`to_json` wrote.

        Raises:
            StoreError: if it is something else.
        """
        values = _parse(text, SCAN_SCHEMA)
        try:
            z, y, x = values["shape"]
            dz, dy, dx = values["spacing_mm"]
            return cls(
                fingerprint=values["fingerprint"],
                content_sha256=values["content_sha256"],
                shape=(z, y, x),
                spacing_mm=(dz, dy, dx),
                references=values["references"],
                lobes=values["lobes"],
                findings=tuple(Finding(**finding) for finding in values["findings"]),
                geometry=values["geometry"],
                prepare=PrepareConfig.model_validate(values["prepare"]),
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise StoreError("A scan.json is damaged", found=f"{type(error).__name__}: {error}") from None


@dataclass(frozen=True)
class StoredScan:
    """A prepared scan, opened from the store; nothing is read before it is touched.

    Attributes:
        folder: where it lies.
        record: its ``scan.json``.
        row: its row of the manifest, if the store was given one.
    """

    folder: Path
    record: ScanRecord
    row: ManifestRow | None = None

    @property
    def scan_id(self) -> str:
        """Which scan."""
        return self.folder.name

    @property
    def severity(self) -> int:
        """1 severe, 0 non-severe, -1 unknown, by the manifest's row."""
        return -1 if self.row is None or self.row.severity is None else self.row.severity

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """``(z, y, x)``."""
        return self.record.spacing_mm

    @cached_property
    def array(self) -> NDArray[np.int16]:
        """``[z, y, x]`` int16 HU, memory-mapped, read-only."""
        return self._map("ct.npy", np.int16)

    @cached_property
    def lobes(self) -> NDArray[np.uint8] | None:
        """``[z, y, x]`` uint8 lobe codes, memory-mapped, read-only; None without a mask."""
        return None if self.record.lobes is None else self._map("lobes.npy", np.uint8)

    @cached_property
    def references(self) -> dict[str, NDArray[np.float32] | None]:
        """``[2, 3]`` float32 low and high corner (z, y, x) in stored voxels, by name; None where not found."""
        return {
            name: None if box is None else np.asarray(box, dtype=np.float32)
            for name, box in self.record.references.items()
        }

    def prepared(self) -> PreparedScan:
        """The scan as :func:`m2unet.ct.prepare.prepare_volume` made it, with the way back to the volume's grid."""
        z, y, x = self.record.geometry["shape"]
        top, bottom, left, right = self.record.geometry["window"]
        rows, columns = self.record.geometry["scale"]
        return PreparedScan(
            array=self.array,
            spacing_mm=self.spacing_mm,
            references=self.references,
            volume_shape=(z, y, x),
            window=(top, bottom, left, right),
            scale=(rows, columns),
        )

    def _map(self, name: str, dtype: type[np.generic]) -> NDArray[Any]:
        try:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{name} of {self.scan_id} cannot be opened", found=error, mend="prepare it again"
            ) from None
        if array.shape != self.record.shape or array.dtype != dtype:
            raise StoreError(
                f"{name} of {self.scan_id} does not fit its scan.json",
                found=f"{array.dtype} {array.shape}",
                expected=f"{np.dtype(dtype)} {self.record.shape}",
                mend="delete the scan's folder and prepare it again",
            )
        return array


_OWN = frozenset({"ct.npy", "lobes.npy", "scan.json", "old"})
"""What the folder of a prepared scan may hold."""


class Store:
    """A folder of prepared scans.

    Args:
        folder: made by :func:`m2unet.cohort.prepare.prepare_cohort`.
        rows: manifest rows; they bring the labels. Without them every severity is unknown.

    Attributes:
        prepare: the configuration all its scans were prepared with.
        lobe_codes: whose codes the lobe masks it was made from use; the stored masks hold this package's.

    Raises:
        StoreError: if the folder is no store.
    """

    def __init__(self, folder: str | Path, rows: Iterable[ManifestRow] = ()) -> None:
        self.folder = Path(folder)
        self.rows = {row.scan_id: row for row in rows}
        path = self.folder / "store.json"
        if not path.is_file():
            raise StoreError("The folder is not a store", found=self.folder, mend="make one with `m2unet prepare`")
        self.prepare, self.lobe_codes = _store_settings(path.read_text(encoding="utf-8"))

    @classmethod
    def create(
        cls,
        folder: str | Path,
        prepare: PrepareConfig,
        *,
        lobe_codes: CodeSystem | None = None,
        replace: bool = False,
    ) -> Store:
        """Open a store, or begin one.

        Args:
            folder: made if missing.
            prepare: how its scans are prepared.
            lobe_codes: whose codes the lobe masks use; None keeps the store's; a new one recognises them mask by mask.
            replace: accept other settings than the store's; its scans then count as unfinished.

        Raises:
            StoreError: if the folder is a store made with other settings.
        """
        path = Path(folder) / "store.json"
        codes: CodeSystem = lobe_codes or "auto"
        if path.is_file():
            store = cls(folder)
            codes = lobe_codes or store.lobe_codes
            differences = _differences(store.prepare, prepare)
            if codes != store.lobe_codes:
                differences.append(f"lobe codes {store.lobe_codes} (asked for {codes})")
            if differences and not replace:
                raise StoreError(
                    "The store was prepared with another configuration",
                    found=", ".join(differences),
                    mend="choose another folder, or prepare all scans again with --redo",
                )
            if not differences:
                return store
        values = {
            "schema": STORE_SCHEMA,
            "version": VERSION,
            "prepare": prepare.model_dump(mode="json"),
            "lobe_codes": codes,
        }
        write_text(path, json.dumps(values, indent=1) + "\n")
        return cls(folder)

    def scan_ids(self) -> list[str]:
        """Names of the scans that are finished with the store's configuration, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("[!.]*/scan.json") if self.has(path.parent.name))

    def has(self, scan_id: str, fingerprint: str | None = None) -> bool:
        """Whether a scan is finished with the store's configuration, and of this source if one is given."""
        try:
            record = self.record(scan_id)
        except StoreError:
            return False
        return fingerprint is None or record.fingerprint == fingerprint

    def record(self, scan_id: str) -> ScanRecord:
        """The ``scan.json`` of a scan.

        Raises:
            StoreError: if the scan is not there, or was prepared with another configuration.
        """
        path = self.folder / scan_id / "scan.json"
        try:
            record = ScanRecord.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise StoreError(
                "The store does not hold this scan",
                found=scan_id,
                expected=f"one of the scans in {self.folder}",
                mend="run `m2unet prepare` on a manifest that lists it",
            ) from None
        if record.prepare != self.prepare:
            raise StoreError(
                f"{scan_id} was prepared with another configuration than its store",
                found=", ".join(_differences(record.prepare, self.prepare)),
                mend="run `m2unet prepare` again",
            )
        return record

    def open(self, scan_id: str) -> StoredScan:
        """Open one scan; its arrays are mapped when first touched.

        Raises:
            StoreError: as :meth:`record`.
        """
        return StoredScan(self.folder / scan_id, self.record(scan_id), self.rows.get(scan_id))

    def write(
        self, scan_id: str, record: ScanRecord, array: NDArray[np.int16], lobes: NDArray[np.uint8] | None
    ) -> None:
        """Write one scan whole or not at all, replacing an earlier one.

        Raises:
            StoreError: if it cannot be written, or its folder holds something else.
        """
        final = self.folder / scan_id
        if final.is_dir() and {entry.name for entry in final.iterdir()} - _OWN:
            raise StoreError(
                f"The store's folder for {scan_id} holds something that is no prepared scan, and is left alone",
                mend="choose another folder for the store",
            )
        self.clear_leftovers(scan_id)
        try:
            temporary = Path(tempfile.mkdtemp(prefix=f".{scan_id}~", dir=self.folder))
            try:
                temporary.chmod(0o755)
                np.save(temporary / "ct.npy", np.ascontiguousarray(array))
                if lobes is not None:
                    np.save(temporary / "lobes.npy", np.ascontiguousarray(lobes))
                (temporary / "scan.json").write_text(record.to_json(), encoding="utf-8")
                if final.exists():
                    final.rename(temporary / "old")
                temporary.rename(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            shutil.rmtree(final / "old", ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{scan_id} cannot be written", found=error.strerror) from error

    def clear_leftovers(self, scan_id: str) -> None:
        """Remove what an interrupted writing of this scan left behind."""
        for path in self.folder.glob(f".{scan_id}~*"):
            shutil.rmtree(path, ignore_errors=True)


def content_hash(array: NDArray[np.int16]) -> str:
    """SHA-256 of shape and values of a prepared scan: equal for the same prepared image under two names."""
    digest = hashlib.sha256(json.dumps(array.shape).encode())
    digest.update(np.ascontiguousarray(array, dtype="<i2").data)
    return digest.hexdigest()


def _store_settings(text: str) -> tuple[PrepareConfig, CodeSystem]:
    values = _parse(text, STORE_SCHEMA)
    codes = [name for name in CODE_SYSTEMS if name == values.get("lobe_codes")]
    try:
        return PrepareConfig.model_validate(values.get("prepare")), codes[0]
    except (ValidationError, IndexError):
        raise StoreError("The store.json is damaged", found=values, mend="prepare into another folder") from None


def _parse(text: str, schema: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise StoreError("A file of the store is not JSON", found=error) from None
    if not isinstance(values, dict) or (values.get("schema"), values.get("version")) != (schema, VERSION):
        found = f"{values.get('schema')} version {values.get('version')}" if isinstance(values, dict) else type(values)
        raise StoreError(
            "A file of the store is of another kind or version",
            found=found,
            expected=f"{schema} version {VERSION}",
            mend="prepare the cohort again with this version",
        )
    return values


def _differences(found: PrepareConfig, expected: PrepareConfig) -> list[str]:
    there, wanted = found.model_dump(), expected.model_dump()
    return [f"{key}={there[key]} (asked for {wanted[key]})" for key in there if there[key] != wanted[key]]
