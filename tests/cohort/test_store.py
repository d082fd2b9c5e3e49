"""The store: written whole, opened lazily, suspicious of what does not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.bags.sampling import LabelledSource, draw_bag
from m2unet.cohort import store as module
from m2unet.cohort.manifest import ManifestRow
from m2unet.cohort.store import ScanRecord, Store
from m2unet.config import BagConfig, PrepareConfig
from m2unet.ct.findings import Finding
from m2unet.errors import OutputError, StoreError
from m2unet.files import write_text

CONFIG = PrepareConfig()
ARRAY: NDArray[np.int16] = np.arange(3 * 20 * 18, dtype=np.int16).reshape(3, 20, 18)
LOBES: NDArray[np.uint8] = (ARRAY % 6).astype(np.uint8)


def record(config: PrepareConfig = CONFIG, *, lobes: bool = True) -> ScanRecord:
    return ScanRecord(
        fingerprint="f" * 64,
        content_sha256="c" * 64,
        shape=(3, 20, 18),
        spacing_mm=(5.0, 0.7, 0.7),
        references={"body": [[0.0, 0.0, 0.0], [3.0, 20.0, 18.0]], "lungs": None},
        lobes=[0, 1, 2, 3, 4, 5] if lobes else None,
        findings=(Finding("few-slices", "warning", "3 slices", "scan more"),),
        geometry={"shape": [3, 30, 30]},
        prepare=config,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store", CONFIG)
    store.write("a", record(), ARRAY, LOBES)
    store.write("b", record(lobes=False), ARRAY, None)
    return store


def test_what_is_written_is_opened(store: Store) -> None:
    scan = Store(store.folder, [ManifestRow("a", "p", Path("x"), severity=1)]).open("a")
    assert isinstance(scan.array, np.memmap) and isinstance(scan.lobes, np.memmap)
    assert not scan.array.flags.writeable
    assert np.array_equal(scan.array, ARRAY) and np.array_equal(scan.lobes, LOBES)
    assert (scan.array.dtype, scan.lobes.dtype) == (np.int16, np.uint8)
    assert (scan.scan_id, scan.severity, scan.spacing_mm) == ("a", 1, (5.0, 0.7, 0.7))
    assert scan.row is not None and scan.row.patient_id == "p"
    assert scan.references["lungs"] is None
    body = scan.references["body"]
    assert body is not None and body.dtype == np.float32 and body.tolist() == [[0, 0, 0], [3, 20, 18]]
    assert scan.record == record()


def test_without_a_row_the_severity_is_unknown(store: Store) -> None:
    scan = store.open("b")
    assert (scan.row, scan.severity, scan.lobes) == (None, -1, None)
    unknown = Store(store.folder, [ManifestRow("b", "p", Path("x"))]).open("b")
    assert unknown.severity == -1


def test_a_bag_is_drawn_from_a_stored_scan(store: Store) -> None:
    scan = store.open("a")
    assert isinstance(scan, LabelledSource)
    bag = draw_bag(scan, BagConfig(size=5, patch=16, position="lungs"), np.random.default_rng(0))
    z, y, x = bag.corners[2]
    assert bag.scan_id == "a" and bag.lobes is not None and bag.reference is not None
    assert np.array_equal(bag.patches[2], ARRAY[z, y : y + 16, x : x + 16])
    assert np.array_equal(bag.lobes[2], LOBES[z, y : y + 16, x : x + 16])


def test_scans_are_listed_and_looked_up(store: Store) -> None:
    assert store.scan_ids() == ["a", "b"]
    assert store.has("a") and store.has("a", "f" * 64)
    assert not store.has("a", "0" * 64) and not store.has("c")
    with pytest.raises(StoreError, match="does not hold"):
        store.open("c")


def test_the_files_hold_no_names_or_paths(store: Store) -> None:
    text = (store.folder / "a" / "scan.json").read_text()
    values = json.loads(text)
    assert (values["schema"], values["version"]) == ("m2unet/prepared-scan", 1)
    assert str(store.folder) not in text
    assert not {"patient_id", "image", "path", "severity"} & set(values)


def test_writing_again_replaces(store: Store) -> None:
    store.write("a", record(lobes=False), ARRAY, None)
    assert store.open("a").lobes is None
    assert sorted(path.name for path in store.folder.iterdir()) == ["a", "b", "store.json"]
    assert sorted(path.name for path in (store.folder / "a").iterdir()) == ["ct.npy", "scan.json"]


def test_an_interrupted_writing_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(store.folder.rglob("*"))
    monkeypatch.setattr(module.np, "save", interrupt)
    for name in ("a", "new"):
        with pytest.raises(KeyboardInterrupt):
            store.write(name, record(), ARRAY, LOBES)
    assert sorted(store.folder.rglob("*")) == before
    assert np.array_equal(store.open("a").array, ARRAY)


def test_leftovers_of_a_killed_process_are_cleared(store: Store) -> None:
    (store.folder / ".a~killed").mkdir()
    (store.folder / ".a~killed" / "ct.npy").write_bytes(b"half")
    assert store.scan_ids() == ["a", "b"]
    store.write("a", record(), ARRAY, LOBES)
    assert not (store.folder / ".a~killed").exists()


def test_another_configuration_is_refused_or_replaces(store: Store) -> None:
    other = PrepareConfig(body_threshold_hu=-500)
    with pytest.raises(StoreError, match=r"body_threshold_hu=0 \(asked for -500"):
        Store.create(store.folder, other)
    with pytest.raises(StoreError, match=r"lobe codes auto \(asked for lungmask"):
        Store.create(store.folder, CONFIG, lobe_codes="lungmask")
    assert Store.create(store.folder, CONFIG).prepare == CONFIG
    replaced = Store.create(store.folder, other, replace=True)
    assert replaced.prepare == other and replaced.scan_ids() == []
    with pytest.raises(StoreError, match="another configuration than its store"):
        replaced.open("a")


def test_lobe_codes_are_remembered(tmp_path: Path) -> None:
    assert Store.create(tmp_path, CONFIG, lobe_codes="luna16").lobe_codes == "luna16"
    assert Store.create(tmp_path, CONFIG).lobe_codes == "luna16"
    assert Store.create(tmp_path, PrepareConfig(min_box=64), replace=True).lobe_codes == "luna16"


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a store"):
        Store(tmp_path)


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "not JSON"),
        ("[]", "another kind"),
        ('{"schema": "m2unet/store", "version": 99}', "version 99"),
        ('{"schema": "m2unet/store", "version": 1, "prepare": {"x": 1}, "lobe_codes": "m2unet"}', "damaged"),
        ('{"schema": "m2unet/store", "version": 1, "prepare": {}, "lobe_codes": "?"}', "damaged"),
    ],
)
def test_a_damaged_store_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StoreError, match=said):
        Store(tmp_path)


def test_a_damaged_scan_counts_as_unfinished(store: Store) -> None:
    path = store.folder / "a" / "scan.json"
    values = json.loads(path.read_text())
    del values["shape"]
    path.write_text(json.dumps(values))
    with pytest.raises(StoreError, match="damaged"):
        store.open("a")
    assert store.scan_ids() == ["b"]


def test_arrays_that_do_not_fit_are_refused(store: Store) -> None:
    np.save(store.folder / "a" / "ct.npy", ARRAY[:2])
    with pytest.raises(StoreError, match="does not fit"):
        _ = store.open("a").array
    with (store.folder / "b" / "ct.npy").open("r+b") as stream:
        stream.truncate(500)
    with pytest.raises(StoreError, match="cannot be opened"):
        _ = store.open("b").array


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.create(tmp_path / "store", CONFIG)


def test_a_file_in_the_way(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "x.json", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "folder", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "store"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write("c", record(), ARRAY, None)
    assert store.scan_ids() == ["a", "b"]


def test_a_folder_of_somebody_else_is_left_alone(store: Store) -> None:
    """As where the store is begun in the folder that holds the scans themselves."""
    series = store.folder / "s001"
    series.mkdir()
    (series / "IM0001.dcm").write_text("a slice")
    with pytest.raises(StoreError, match="left alone"):
        store.write("s001", record(), ARRAY, None)
    assert [path.name for path in series.iterdir()] == ["IM0001.dcm"] and not list(store.folder.glob(".s001~*"))
