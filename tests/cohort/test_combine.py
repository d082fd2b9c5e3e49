"""Manifests combined: ids kept apart, one image's knowledge joined, contradictions refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m2unet.cohort.combine import combine
from m2unet.cohort.manifest import ManifestRow, read_manifest, write_manifest
from m2unet.errors import ManifestError


def manifest(folder: Path, name: str, *rows: ManifestRow) -> Path:
    """Writes the rows and whatever files they name."""
    for row in rows:
        for path in (row.image, row.lobes):
            if path is not None:
                path.touch()
    write_manifest(rows, folder / name)
    return folder / name


def test_ids_of_different_manifests_stay_apart(tmp_path: Path) -> None:
    a = manifest(tmp_path, "a.csv", ManifestRow("1", "p", tmp_path / "a1.nii", lobes=tmp_path / "l1.nii"))
    b = manifest(tmp_path, "b.csv", ManifestRow("1", "p", tmp_path / "b1.nii", severity=1))
    done = combine([a, b], tmp_path / "sub" / "c.csv")
    rows = read_manifest(tmp_path / "sub" / "c.csv").rows
    assert [(row.scan_id, row.patient_id, row.severity) for row in rows] == [("a-1", "a-p", None), ("b-1", "b-p", 1)]
    assert rows[0].lobes is not None and rows[0].lobes.resolve() == tmp_path / "l1.nii"
    assert not done.joined and not done.warnings
    named = combine([a, b], tmp_path / "d.csv", prefixes=["ts", "stoic"])
    assert [row.scan_id for row in named.rows] == ["ts-1", "stoic-1"]


def test_rows_of_one_image_are_joined(tmp_path: Path) -> None:
    image, other = tmp_path / "x.nii", tmp_path / "y.nii"
    a = manifest(tmp_path, "a.csv", ManifestRow("1", "p", image, severity=0, age=50.0, site="A"))
    lobes = ManifestRow("x", "q", image, lobes=tmp_path / "l.nii", age=50.0, site="B")
    b = manifest(tmp_path, "b.csv", ManifestRow("y", "q", other), lobes)
    done = combine([a, b], tmp_path / "c.csv")
    assert done.joined == ("a-1",)
    first, second = done.rows
    assert (first.scan_id, first.severity, first.age, first.site) == ("a-1", 0, 50.0, "A") and first.lobes is not None
    assert (second.scan_id, second.patient_id) == ("b-y", "a-p")  # the same person as the joined scan's


def test_contradictions_are_refused_all_at_once(tmp_path: Path) -> None:
    image, other = tmp_path / "x.nii", tmp_path / "y.nii"
    a = manifest(tmp_path, "a.csv", ManifestRow("1", "p", image, severity=0), ManifestRow("2", "r", other))
    b = manifest(tmp_path, "b.csv", ManifestRow("1", "q", image, severity=1), ManifestRow("2", "q", other))
    with pytest.raises(ManifestError) as caught:
        combine([a, b], tmp_path / "c.csv")
    assert len(caught.value.faults) == 2
    assert "severity differs from a-1" in str(caught.value) and "two patients elsewhere" in str(caught.value)
    assert not (tmp_path / "c.csv").exists()


def test_prefixes_must_tell_manifests_apart(tmp_path: Path) -> None:
    a = manifest(tmp_path, "a.csv", ManifestRow("1", "p", tmp_path / "x.nii"))
    for given, said in (([a], "at least two"), ([a, a], "'a' is used twice")):
        with pytest.raises(ManifestError, match=said):
            combine(given, tmp_path / "c.csv")
    with pytest.raises(ManifestError, match=r"1 prefix\(es\) for 2"):
        combine([a, a], tmp_path / "c.csv", prefixes=["z"])


def test_severities_of_different_meaning_are_pointed_out(tmp_path: Path) -> None:
    paths = []
    for name, label in (("a", "an outcome"), ("b", "a CT grade"), ("c", "an outcome")):
        row = ManifestRow("1", "p", tmp_path / f"{name}.nii", severity=1)
        paths.append(manifest(tmp_path, f"{name}.csv", row))
        (tmp_path / f"{name}_import").mkdir()
        (tmp_path / f"{name}_import/report.json").write_text(json.dumps({"label": label}))
    assert not combine([paths[0], paths[2]], tmp_path / "x.csv").warnings
    (warning,) = combine(paths, tmp_path / "y.csv").warnings
    assert "a.csv, c.csv: an outcome; b.csv: a CT grade" in warning


def test_own_columns_are_joined_and_differences_told(tmp_path: Path) -> None:
    image = tmp_path / "x.nii"
    a = manifest(tmp_path, "a.csv", ManifestRow("1", "p", image, extra={"crp": "51", "note": "", "ward": "A"}))
    rows = (
        ManifestRow("x", "q", image, severity=1, extra={"crp": "51", "note": "late", "ward": "B", "pcr": "+"}),
        ManifestRow("y", "r", tmp_path / "y.nii"),
    )
    done = combine([a, manifest(tmp_path, "b.csv", *rows)], tmp_path / "c.csv")
    first, second = read_manifest(tmp_path / "c.csv").rows
    assert dict(first.extra) == {"crp": "51", "note": "late", "ward": "A", "pcr": "+"}
    assert set(second.extra.values()) == {""}
    (warning,) = [w for w in done.warnings if "ward" in w]
    assert "the first value is kept" in warning
