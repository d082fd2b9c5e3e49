"""What a case is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m2unet.ct.identity import ScanIdentity
from m2unet.ct.patient import PatientWords, patient_words
from m2unet.errors import ConfigError
from m2unet.workflows.case_names import case_name, check_names, plain_stem, traceback_text, without_names

ERIKA = patient_words(names=["MUSTERFRAU^ERIKA"], ids=["4711"], births=["19640812"])
SCAN = ScanIdentity("0123456789abcdef" * 4, "series", "", patient=ERIKA)


def test_a_name_is_the_folder_s_with_the_digest_or_the_user_s() -> None:
    assert case_name(Path("/pacs/x/CT"), None, SCAN) == ("CT-01234567", False)
    assert case_name(Path("/pacs/x/CT"), "s001", SCAN) == ("s001", False)


@pytest.mark.parametrize("given", [None, "musterfrau_2", "p4711"])
def test_names_that_resemble_the_patient_are_replaced_unless_asked_for(given: str | None) -> None:
    path = Path("/pacs/MUSTERFRAU_ERIKA_19640812")
    assert case_name(path, given, SCAN) == ("scan-01234567", True)
    kept, replaced = case_name(path, given, SCAN, identify=True)
    assert not replaced and kept == (given or "MUSTERFRAU_ERIKA_19640812-01234567")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"),
        ("a.b.NRRD", "a.b"),
        (".hidden", "hidden"),
        ("CON", "scan_CON"),
        ("aux.v2.mha", "scan_aux.v2"),
        ("a:b?c", "a_b_c"),
        ("Fall  3 ", "Fall 3"),
        ("Thorax_für_Wien", "Thorax_für_Wien"),
        ("\u202eabc\u200b", "abc"),
        ("...", "scan"),
        ("x" * 240, "x" * 80),
        ("ü" * 100, "ü" * 40),
    ],
)
def test_stems_suit_every_file_system(name: str, stem: str) -> None:
    assert plain_stem(Path("/data") / name) == stem


def test_odd_paths_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert plain_stem(Path("..")) == plain_stem(tmp_path) and plain_stem(Path("/")) == "scan"
    raw = Path(os.fsdecode(b"caf\xe9"))
    plain_stem(raw).encode("utf-8")


@pytest.mark.parametrize("name", ["..", "a/b", "", "a b", "con", "x" * 101, "sources", "Assets", "cohort.csv", "-x"])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a case"):
        check_names(["good", name])


def test_messages_lose_paths_and_names() -> None:
    path = Path("/pacs/MUSTERFRAU ERIKA/CT")
    text = "[Errno 5] bad block: '/pacs/MUSTERFRAU ERIKA/CT/IM1' (born 12.08.1964), see /tmp/x and Musterfrau.log"
    said = without_names(text, [path], ERIKA)
    assert "MUSTER" not in said.upper() and "1964" not in said and "/tmp" not in said and "bad block" in said
    kept = "Tried to allocate 20.00 GiB; Found: 79 of 79 slices have no position. To mend: check the path."
    assert without_names(kept, [path], ERIKA) == kept


def test_tracebacks_keep_the_code_s_places_alone() -> None:
    try:
        raise RuntimeError("cannot open /pacs/MUSTERFRAU/CT/IM1 of Erika")
    except RuntimeError as error:
        said = traceback_text(error, [Path("/pacs/MUSTERFRAU/CT")], ERIKA)
    assert "test_case_names.py" in said and "RuntimeError" in said
    assert "MUSTERFRAU" not in said and "of Erika" not in said.replace('raise RuntimeError("cannot open', "")


def test_without_a_header_nothing_is_replaced() -> None:
    found = ScanIdentity("ab" * 32, "path", "", patient=PatientWords())
    assert case_name(Path("MUSTERFRAU.nii.gz"), None, found) == ("MUSTERFRAU-abababab", False)
