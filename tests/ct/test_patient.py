"""Whether a name resembles what a header says of the patient: real ones are found, common words are not."""

from __future__ import annotations

import pytest

from m2unet.ct.patient import free_words, patient_words

ERIKA = patient_words(names=["MUSTERFRAU^ERIKA"], ids=["4711"], births=["19640812"], studies=["20240301"])
MUELLER = patient_words(names=["Müller-Lüdenscheidt^Jörg^^Dr."])
SHORT = patient_words(names=["A^A", "CT^TEST"], ids=["1", "CT", "A"])


@pytest.mark.parametrize(
    "text",
    [
        "MUSTERFRAU_ERIKA_19640812",
        "musterfrau",
        "CT-erika-2",
        "ErikaMusterfrau",
        "musterfrauerika",
        "Frau_Musterfr",
        "Musterfrua Erik",
        "4711",
        "pat_4711_CT",
        "CT4711",
        "0004711",
        "1964-08-12",
        "12.08.1964",
        "12.8.1964",
        "12081964",
        "08121964",
        "640812",
        "12_Aug_1964",
        "geb12081964",
        "CT_20240301",
        "CT 2024-03-01",
    ],
)
def test_names_numbers_and_dates_are_found(text: str) -> None:
    assert ERIKA.resemble(text)


@pytest.mark.parametrize(
    "text",
    ["CT", "scan", "s001", "47110", "1471", "case_12", "lung_1mm_B70f", "2024", "1964", "0812", "series_2", "Thorax_3"],
)
def test_other_words_are_not(text: str) -> None:
    assert not ERIKA.resemble(text)


@pytest.mark.parametrize(
    "text", ["Mueller", "mueller_ct", "Muller", "MÜLLER", "Mu\u0308ller", "luedenscheidt", "JOERG", "jorg", "Jörg1"]
)
def test_accents_and_umlauts_are_spelled_in_any_way(text: str) -> None:
    assert MUELLER.resemble(text)


@pytest.mark.parametrize("text", ["CT", "1", "A", "patient A", "ct_1", "test", "2", "scan-1", "a1"])
def test_short_and_common_words_make_no_resemblance(text: str) -> None:
    assert not SHORT.resemble(text)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("Li^Wei", "li_wei", True),
        ("Li^Wei", "liwei", True),
        ("Li^Wei", "slice", False),
        ("May^Lisa", "lisamay", True),
        ("王^小東=Wang^XiaoDong", "王小東", True),
        ("Wang^XiaoDong=王^小東", "wang_xiaodong", True),
        ("O'Brien^Sean", "obrien", True),
        ("O'Brien^Sean", "o_brien", True),
        ("van der Berg^Jan", "van_der_Waals", False),
        ("Иванов^Пётр", "иванов", True),
        ("Søren^Ågård", "soeren", True),
        ("Søren^Ågård", "agard", True),
        ("LIDC-IDRI-0001", "LIDC-IDRI-0001", True),
        ("Anonymous", "anonymous_3", False),
    ],
)
def test_names_of_many_kinds(name: str, text: str, found: bool) -> None:
    assert patient_words(names=[name]).resemble(text) is found


def test_headers_whose_identities_were_removed_hold_pseudonyms() -> None:
    header = {"names": ["149872^LSS"], "ids": ["101287"], "studies": ["19990102"]}
    assert not patient_words(**header, removed=True).resemble("101287")
    assert patient_words(**header).resemble("101287")
    assert patient_words(names=["MUSTERFRAU^ERIKA"], ids=["4711"], removed=True).resemble("musterfrau")


def test_free_text_gives_words_numbers_and_dates() -> None:
    words = free_words("converted for Erika Musterfrau, born 1964-08-12, no. A-4711-22")
    assert all(words.resemble(text) for text in ("musterfrau", "12.08.1964", "A471122"))
    assert not words.resemble("converted_no_3")
