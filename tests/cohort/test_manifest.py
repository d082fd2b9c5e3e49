"""The manifest: read whole, every fault at once, written back to the same rows."""

from __future__ import annotations

import datetime
import pickle
from pathlib import Path

import pandas as pd
import pytest

from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from m2unet.errors import ManifestError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz", "a_lobes.nii.gz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Manifest:
    path = folder / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return read_manifest(path)


def faults(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        manifest(folder, text)
    return caught.value.faults


FULL = """scan_id,patient_id,image,lobes,severity,grade,site,age,sex,date,lesions
s1,p1,a.nii.gz,a_lobes.nii.gz,1,critical,"Site A, north",63,F,2020-02-29,a_lobes.nii.gz
s2,p2,series,,,Moderate,,41.5,male,,
s3,p3,b.nii.gz,,,,,,,,
"""


def test_every_column_is_understood(folder: Path) -> None:
    rows = manifest(folder, FULL).rows
    assert rows[0] == ManifestRow(
        scan_id="s1",
        patient_id="p1",
        image=folder / "a.nii.gz",
        lobes=folder / "a_lobes.nii.gz",
        severity=1,
        grade="critical",
        site="Site A, north",
        age=63.0,
        sex="F",
        date=datetime.date(2020, 2, 29),
        lesions=folder / "a_lobes.nii.gz",
    )
    assert (rows[1].image, rows[1].severity, rows[1].grade) == (folder / "series", 0, "moderate")
    assert (rows[1].age, rows[1].sex, rows[1].lobes, rows[1].date) == (41.5, "M", None, None)
    assert rows[2] == ManifestRow("s3", "p3", folder / "b.nii.gz")


@pytest.mark.parametrize("grade, severity", [("mild", 0), ("moderate", 0), ("severe", 1), ("critical", 1)])
def test_severity_follows_from_the_grade(folder: Path, grade: str, severity: int) -> None:
    assert manifest(folder, f"scan_id,patient_id,image,grade\ns,p,a.nii.gz,{grade}\n").rows[0].severity == severity


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(folder: Path, separator: str, encoding: str, newline: str) -> None:
    text = f"scan_id,patient_id,image,site{newline}s,p,a.nii.gz,Zürich{newline}{newline}"
    rows = manifest(folder, text.replace(",", separator), encoding).rows
    assert [(row.scan_id, row.site) for row in rows] == [("s", "Zürich")]


def test_all_faults_are_listed_with_their_rows(folder: Path) -> None:
    text = """scan_id,patient_id,image,lobes,severity,grade,age,sex,date
s1,p1,a.nii.gz,,2,,,,
s1,p2,b.nii.gz,,,,,,

,p3,c.nii.gz,,,,,,
s4,,missing.nii.gz,gone.nii.gz,,,,,
../s5,p5,a.nii.gz,,0,severe,,,
s6,p6,,,,dire,035Y,X,01.02.2020
s7,p7,empty,series,,,-1,,2020-02-30
s8,p8,a.nii.gz,,,,,,,,surplus
"""
    found = faults(folder, text)
    expected = [
        "row 2: severity '2' is not 0",
        "row 5: scan_id is empty",
        "row 6: patient_id is empty",
        "row 6: image 'missing.nii.gz' does not exist",
        "row 6: lobes 'gone.nii.gz' does not exist",
        "row 7: scan_id '../s5' cannot name a file",
        "row 7: grade 'severe' contradicts severity 0",
        "row 8: image is empty",
        "row 8: grade 'dire' is not one of mild, moderate, severe, critical",
        "row 8: age '035Y' is not",
        "row 8: sex 'X' is not",
        "row 8: date '01.02.2020' is not",
        "row 9: image 'empty' is an empty folder",
        "row 9: lobes 'series' is a folder, not a file",
        "row 9: age '-1' is not",
        "row 9: date '2020-02-30' is not",
        "row 10: 11 cells where the header has 9",
        "row 3: scan_id 's1' was already used in row 2",
    ]
    assert len(found) == len(expected)
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start)


def test_ids_that_differ_only_in_case_are_one_folder_on_some_disks(folder: Path) -> None:
    assert "row 3" in faults(folder, "scan_id,patient_id,image\nA,p,a.nii.gz\na,p,b.nii.gz\n")[0]


@pytest.mark.parametrize("scan_id", ["a/b", "a\\b", ".hidden", "a b", "NUL", "con.txt", "x" * 101, "end.", "é"])
def test_ids_that_cannot_name_a_file(folder: Path, scan_id: str) -> None:
    assert "cannot name a file" in faults(folder, f"scan_id,patient_id,image\n{scan_id},p,a.nii.gz\n")[0]


def test_header_faults_suggest_near_names(folder: Path) -> None:
    found = faults(folder, "scan_id,Patient ID,image,severty,weather,image\n")
    assert found == (
        "unknown column 'patient id', did you mean 'patient_id'",
        "unknown column 'severty', did you mean 'severity'",
        "unknown column 'weather'",
        "missing column 'patient_id'",
        "column 'image' occurs twice",
    )


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"scan_id,patient_id,image\n", "no row below the header"),
        ("scan_id,patient_id,image\ns,p,Zürich.nii".encode("latin-1"), "row 2: bytes that are not UTF-8"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"scan_id\0", "not text"),
        (b'scan_id,patient_id,image\ns,p,"a', "not valid CSV"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "cohort.csv"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=said):
        read_manifest(path)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="folder"):
        read_manifest(tmp_path)


def test_a_windows_path_gets_advice(folder: Path) -> None:
    assert "forward slashes" in faults(folder, "scan_id,patient_id,image\ns,p,sub\\a.nii.gz\n")[0]


def test_files_need_not_exist_if_not_asked_for(folder: Path) -> None:
    path = folder / "cohort.csv"
    path.write_text("scan_id,patient_id,image\ns,p,elsewhere/x.nii.gz\n")
    assert read_manifest(path, check_files=False).rows[0].image == folder / "elsewhere" / "x.nii.gz"


def test_oddities_are_warnings_that_name_no_patient(folder: Path) -> None:
    text = "scan_id,patient_id,image,severity,sex\ns1,jane,a.nii.gz,1,F\ns2,jane,a.nii.gz,0,M\ns3,bob,b.nii.gz,,\n"
    warnings = manifest(folder, text).warnings
    assert warnings == (
        "rows 2, 3: one patient's scans differ in severity",
        "rows 2, 3: one patient's scans differ in sex",
        "rows 2, 3: the same image",
    )


def test_helpers(folder: Path) -> None:
    cohort = manifest(folder, FULL.replace("s3,p3", "s3,p1"))
    assert len(cohort) == 3 and [row.scan_id for row in cohort] == ["s1", "s2", "s3"]
    assert cohort.by_id("s2").image == folder / "series"
    assert [row.scan_id for row in cohort.with_lobes()] == ["s1"]
    assert [row.scan_id for row in cohort.with_severity()] == ["s1", "s2"]
    assert {p: [r.scan_id for r in rows] for p, rows in cohort.patients().items()} == {"p1": ["s1", "s3"], "p2": ["s2"]}
    assert [row.scan_id for row in cohort.select(["s3", "s1"])] == ["s3", "s1"]
    with pytest.raises(ManifestError, match="did you mean"):
        cohort.by_id("s22")


def test_what_is_written_is_read_back(folder: Path) -> None:
    rows = manifest(folder, FULL).rows
    path = folder / "sub" / "copy.csv"
    write_manifest(rows, path)
    again = read_manifest(path).rows
    assert [row.image.resolve() for row in again] == [row.image.resolve() for row in rows]
    table = pd.read_csv(path)
    assert table["image"].tolist() == ["../a.nii.gz", "../series", "../b.nii.gz"]
    assert table["age"].tolist()[:2] == [63, 41.5]
    plain = ("scan_id", "patient_id", "severity", "grade", "site", "age", "sex", "date")
    assert [[getattr(r, c) for c in plain] for r in again] == [[getattr(r, c) for c in plain] for r in rows]
    assert [p.name for p in path.parent.iterdir()] == ["copy.csv"]


def test_columns_nobody_fills_are_left_out(tmp_path: Path) -> None:
    write_manifest([ManifestRow("s", "p", tmp_path / "x.nii.gz", severity=0)], tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == "scan_id,patient_id,image,severity\ns,p,x.nii.gz,0\n"


def test_bad_ids_are_not_written(tmp_path: Path) -> None:
    rows = [
        ManifestRow("s", "p", tmp_path / "x"),
        ManifestRow("s", "p", tmp_path / "y"),
        ManifestRow("a/b", "p", tmp_path),
    ]
    with pytest.raises(ManifestError) as caught:
        write_manifest(rows, tmp_path / "m.csv")
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "m.csv").exists()


# --- tables from Excel -----------------------------------------------------------------------------------------------

EXCEL = "scan_id;patient_id;image;severity;age\r\na;p1;a.nii.gz;1;63,5\r\nb;p2;b.nii.gz;0,0;\r\n"


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;;;", "\r\nsep=;"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_sep_line_is_obeyed(folder: Path, line: str, encoding: str) -> None:
    rows = manifest(folder, f"{line}\r\n{EXCEL}", encoding).rows
    assert [(row.scan_id, row.severity, row.age) for row in rows] == [("a", 1, 63.5), ("b", 0, None)]


@pytest.mark.parametrize("separator", ["|", "\t", ","])
def test_a_sep_line_may_name_any_separator(folder: Path, separator: str) -> None:
    text = f"sep={separator}\n" + EXCEL.replace(",", ".").replace(";", separator)
    assert [row.scan_id for row in manifest(folder, text).rows] == ["a", "b"]


def test_rows_are_numbered_as_excel_shows_them_below_a_sep_line(folder: Path) -> None:
    assert faults(folder, "sep=;\nscan_id;patient_id;image\n;p;a.nii.gz\n") == ("row 2: scan_id is empty",)


def test_blank_columns_and_rows_are_left_out(folder: Path) -> None:
    text = ";;;;;\n;scan_id;;patient_id;image;;\n;a;;p1;a.nii.gz;;\n;;;;;;\n; b; ;p2;b.nii.gz\n;;;;;;;;\n"
    found = manifest(folder, text)
    assert [(row.scan_id, dict(row.extra)) for row in found] == [("a", {}), ("b", {})]
    assert found.warnings == ()


def test_values_below_no_name_are_a_fault(folder: Path) -> None:
    text = "scan_id,patient_id,image,,\na,p1,a.nii.gz,,51\n"
    assert faults(folder, text) == ("column 4 holds values and has no name",)


# --- columns of one's own --------------------------------------------------------------------------------------------


def test_own_columns_are_kept_in_order_and_written_back(folder: Path) -> None:
    text = "CRP mg/l,scan_id,patient_id,image,SEVERITY,note\n51,a,p1,a.nii.gz,1,\n,b,p2,b.nii.gz,0,late; see chart\n"
    found = manifest(folder, text)
    assert [dict(row.extra) for row in found] == [
        {"CRP mg/l": "51", "note": ""},
        {"CRP mg/l": "", "note": "late; see chart"},
    ]
    assert [row.severity for row in found] == [1, 0] and found.warnings == ()
    write_manifest([*found, ManifestRow("c", "p3", folder / "c.nii.gz", extra={"more": "x"})], folder / "again.csv")
    again = read_manifest(folder / "again.csv")
    assert [dict(row.extra) for row in again] == [
        {"CRP mg/l": "51", "note": "", "more": ""},
        {"CRP mg/l": "", "note": "late; see chart", "more": ""},
        {"CRP mg/l": "", "note": "", "more": "x"},
    ]
    assert pickle.loads(pickle.dumps(again.rows)) == again.rows and len(set(again.rows)) == 3


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(
            ("severitiy", "severity"),
            ("Severty", "severity"),
            ("lobe", "lobes"),
            ("Lobes ", None),
            ("lesion", "lesions"),
        ),
        *(("grades", "grade"), ("Sit", "site"), ("daet", None), ("sex", None), ("AGE", None)),
    ],
)
def test_a_misspelt_column_is_no_column_of_ones_own(folder: Path, name: str, meant: str | None) -> None:
    text = f"scan_id,patient_id,image,{name}\na,p1,a.nii.gz,\n"
    if meant is None:
        manifest(folder, text)
    else:
        assert faults(folder, text) == (f"unknown column {name.strip().lower()!r}, did you mean {meant!r}",)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("sever", "severity"), ("age_years", "age"), ("lobe mask", "lobes"), ("scan_date", "date")],
)
def test_a_column_that_may_be_meant_for_a_known_one_is_warned_of(folder: Path, name: str, meant: str) -> None:
    found = manifest(folder, f"scan_id,patient_id,image,{name}\na,p1,a.nii.gz,7\n")
    assert found.warnings == (f"column {name!r} is kept as one of your own, did you mean {meant!r}",)
    assert dict(found.rows[0].extra) == {name: "7"}
    both = manifest(folder, f"scan_id,patient_id,image,{name},{meant}\na,p1,a.nii.gz,7,\n")
    assert both.warnings == () and dict(both.rows[0].extra) == {name: "7"}


def test_own_columns_that_cannot_be_told_apart_or_hide_a_known_one(folder: Path) -> None:
    assert faults(folder, "scan_id,patient_id,image,CRP,crp\na,p,a.nii.gz,1,2\n") == ("column 'crp' occurs twice",)
    for name in ("", "Severity"):
        with pytest.raises(ManifestError, match="column of your own"):
            write_manifest([ManifestRow("a", "p", folder / "a.nii.gz", extra={name: "1"})], folder / "x.csv")


def test_an_image_that_was_not_fetched(folder: Path) -> None:
    (folder / "d.nii.gz").symlink_to(folder / "nothing")
    (fault,) = faults(folder, "scan_id,patient_id,image\na,p,d.nii.gz\n")
    assert "a link that leads nowhere" in fault


def test_errors_that_a_user_knows_better_are_accepted_scan_by_scan(folder: Path) -> None:
    text = "scan_id,patient_id,image,accept\ns1,p1,a.nii.gz,lungs-absent windowed\ns2,p2,b.nii.gz,\n"
    rows = manifest(folder, text).rows
    assert rows[0].accept == ("lungs-absent", "windowed") and rows[1].accept == ()
    write_manifest(rows, folder / "again.csv")
    assert read_manifest(folder / "again.csv").rows == rows
    (fault,) = faults(folder, text.replace("windowed", "missing-slices"))
    assert "missing-slices" in fault and "lungs-absent" in fault
