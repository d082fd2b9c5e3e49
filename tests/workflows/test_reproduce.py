"""The whole reproduction on a few tiny phantoms: every file, sharing, resuming."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from m2unet.cli import main as main_module
from m2unet.cohort.manifest import Manifest
from m2unet.errors import ConfigError
from m2unet.workflows.reproduce import Reproduction, _run, part_of, run_experiments
from m2unet.workflows.reproduce_report import write_report
from tests.small_cohort import TINY

SETTINGS = (*TINY, "train.epochs=1", "bag.size=8", "handcrafted.trees=5")


def job(cohort: Manifest, out: Path, **changes: object) -> Reproduction:
    whole = Reproduction(cohort, out, "demo", SETTINGS, folds=4, only_folds=(0,))
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def everything(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tables and figures over one of three folds."""
    out = tmp_path_factory.mktemp("reproduction")
    for found in run_experiments(job(cohort, out)):
        assert not found.failures
        write_report(job(cohort, out), found)
    return out


def test_every_table_and_figure_is_written(everything: Path) -> None:
    for number in range(1, 8):
        for ending in ("csv", "md", "tex"):
            assert (everything / f"table{number}.{ending}").is_file()
    for number in (2, 5, 6):
        assert (everything / f"figure{number}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (everything / f"figure{number}.svg").read_text()
    page = (everything / "index.html").read_text()
    assert all(f'id="table{n}"' in page for n in range(1, 8)) and page.count("data:image/png;base64,") == 3
    assert "digital phantoms (engineering evidence, never clinical)" in page


def test_cells_are_those_of_the_folds(everything: Path) -> None:
    rows = {row["method"]: row for row in csv.DictReader((everything / "table2.csv").open())}
    assert len(rows) == 7
    for method, folder in (("M²UNet", "m2unet"), ("Tang et al.", "tang"), ("Gated Att. MIL", "gated_mil")):
        summary = json.loads((everything / "runs" / folder / "fold0" / "summary.json").read_text())
        assert rows[method]["auc"] == f"{summary['figures']['per_scan']['auc']['estimate']:.3f}"
    sizes = {row["method"]: row for row in csv.DictReader((everything / "table3.csv").open())}
    assert sizes["U-Net"]["full_size_mib"] == "131.71" and sizes["Seg. only"]["full_size_mib"] == "14.37"
    document = json.loads((everything / "reproduction.json").read_text())
    assert document["seed"] == 0 and document["versions"]["torch"] and len(document["experiments"]) == 14


def test_methods_share_folds_and_trainings(everything: Path) -> None:
    runs = sorted(path.name for path in (everything / "runs").iterdir())
    assert len(runs) == 14 and "cls_only-bag2" in runs and "cls_only-bag8" not in runs
    splits = {(everything / "runs" / name / "fold0" / "split.json").read_text() for name in runs}
    assert len(splits) == 1


def test_a_second_call_trains_nothing(cohort: Manifest, everything: Path) -> None:
    weights = everything / "runs" / "m2unet" / "fold0" / "model" / "weights.safetensors"
    before, table = weights.stat().st_mtime_ns, (everything / "table2.csv").read_text()
    (everything / "table2.csv").unlink()
    for found in run_experiments(job(cohort, everything, only=("table2",))):
        write_report(job(cohort, everything, only=("table2",)), found)
    assert weights.stat().st_mtime_ns == before and (everything / "table2.csv").read_text() == table


def test_what_cannot_be_trained_is_told_and_stops_nothing(cohort: Manifest, tmp_path: Path) -> None:
    bare = Manifest(cohort.path, tuple(replace(row, lobes=None) for row in cohort.rows))
    work = job(bare, tmp_path, only=("table7", "table6"))
    (found,) = run_experiments(work)
    assert {key for key in found.outcomes if key.startswith("cls_only")} == set(found.outcomes)
    assert len(found.failures) == 2 and all("lobe mask" in line for line in found.failures)
    assert "Could not be run: seg_only" in write_report(work, found).read_text()


def test_lobes_are_compared_where_a_part_of_the_scans_has_masks(cohort: Manifest, tmp_path: Path) -> None:
    rows = tuple(replace(row, lobes=None) if number % 3 else row for number, row in enumerate(cohort.rows))
    part = Manifest(cohort.path, rows)
    work = replace(job(part, tmp_path, only=("table7",)), overrides=(*SETTINGS, "train.bags_per_step=1"))
    (found,) = run_experiments(work)
    assert not found.failures and {"seg_only", "m2unet"} <= set(found.outcomes)
    masked = {row.scan_id for row in rows if row.lobes is not None}
    tested = {scan.scan_id for scan in found.outcomes["seg_only"].scans}
    assert tested == masked & set(work.splits()[0].test) and tested
    with_dice = {scan.scan_id for scan in found.outcomes["m2unet"].scans if scan.overlap}
    assert with_dice == tested, "the same scans are compared"
    write_report(work, found)
    cells = {row["method"]: row["dsc"] for row in csv.DictReader((tmp_path / "table7.csv").open())}
    assert all(float(cells[name]) >= 0 for name in ("Seg. only", "M²UNet"))


def test_tables_of_what_is_finished_without_training(cohort: Manifest, everything: Path) -> None:
    work = job(cohort, everything, tables_only=True, only=("table3",))
    (found,) = run_experiments(work)
    assert set(found.outcomes) == {"unet", "unetpp", "seg_only", "m2unet", "m2unet_position"}
    part = replace(work, out=everything / "none")
    (nothing,) = run_experiments(part)
    assert not nothing.outcomes and not list((everything / "none").rglob("weights.safetensors"))


def test_several_processes_give_the_same(cohort: Manifest, everything: Path, tmp_path: Path) -> None:
    (found,) = run_experiments(job(cohort, tmp_path, only=("table5",), jobs=2))
    assert not found.failures
    for name in ("cls_only", "m2unet"):
        one, two = (folder / "runs" / name / "fold0" / "predictions.csv" for folder in (everything, tmp_path))
        assert one.read_text() == two.read_text()


def test_quick_takes_whole_patients_of_both_classes(cohort: Manifest) -> None:
    part = part_of(cohort, 8, seed=1)
    assert 8 <= len(part) < len(cohort)
    assert part == part_of(cohort, 8, seed=1)
    whole = {patient: len(rows) for patient, rows in cohort.patients().items()}
    assert all(len(rows) == whole[patient] for patient, rows in part.patients().items())
    assert {row.severity for row in part.rows} == {0, 1}
    quick = Reproduction(cohort, Path("x"), "demo", quick=True)
    assert quick.config().train.epochs == 4 and quick.fold_numbers(3) == (0,)


def test_as_a_user(
    cohort: Manifest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def call(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["m2unet", "reproduce", "--cohort", str(cohort.path), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main_module.run()
        return int(stop.value.code or 0)

    assert call("--preset", "demo", "--out", tmp_path, "--only", "table1", "--quick", "--device", "cpu") == 0
    assert (tmp_path / "table1.csv").is_file() and (tmp_path / "index.html").is_file()
    assert call("--preset", "demo", "--out", tmp_path, "--only", "table9") == 2
    assert "table9" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        _ = Reproduction(cohort, tmp_path, only=("figure1",)).names


@dataclass(frozen=True)
class Endless:
    """A task that does not end by itself; it leaves its process's number."""

    note: Path

    def __call__(self) -> None:
        self.note.with_suffix(".part").write_text(str(os.getpid()), "utf-8")
        self.note.with_suffix(".part").rename(self.note)
        time.sleep(600)


def test_an_interrupt_of_the_parent_alone_stops_its_workers(tmp_path: Path) -> None:
    notes = [tmp_path / name for name in ("one", "two")]

    def interrupt() -> None:
        limit = time.monotonic() + 120
        while not all(note.is_file() for note in notes) and time.monotonic() < limit:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    # Where a shell started this in the background, interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            list(_run([Endless(note) for note in notes], 2))  # type: ignore[misc]
    finally:
        signal.signal(signal.SIGINT, before)
    for note in notes:
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text("utf-8")), 0)
