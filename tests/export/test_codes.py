from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes as dictionary

from m2unet.anatomy import LOBES
from m2unet.export import codes
from m2unet.export.codes import LOBE_CONCEPTS, OPACITY_CONCEPTS, PRIVATE_SCHEME, SITES, Concept
from m2unet.quantify.lobes import GROUPS
from m2unet.quantify.scores import pan_score, yang_score

ALL = [value for value in vars(codes).values() if isinstance(value, Concept)] + list(SITES.values())


@pytest.mark.parametrize("concept", ALL, ids=lambda concept: concept.meaning)
def test_fits_its_attributes(concept: Concept) -> None:
    assert 0 < len(concept.value) <= 16
    assert 0 < len(concept.meaning) <= 64
    assert concept.scheme in ("SCT", "DCM", "UCUM", "LN", PRIVATE_SCHEME)


@pytest.mark.parametrize(
    "concept",
    [
        codes.ANATOMICAL_STRUCTURE,
        codes.MORPHOLOGICALLY_ABNORMAL,
        codes.LUNG,
        codes.VOLUME,
        codes.ATTENUATION,
        codes.STANDARD_DEVIATION,
        codes.COMMENT,
        codes.ARTIFICIAL_INTELLIGENCE,
        codes.NEIGHBOURHOOD_ANALYSIS,
        LOBE_CONCEPTS["RML"],
    ],
    ids=lambda concept: concept.meaning,
)
def test_the_standards_own_dictionary_has_the_same_meaning(concept: Concept) -> None:
    scheme = getattr(dictionary, concept.scheme)
    meanings = {getattr(scheme, name).meaning for name in scheme.dir() if getattr(scheme, name).value == concept.value}
    assert concept.meaning in meanings


def test_no_code_means_two_things() -> None:
    meanings: dict[tuple[str, str], str] = {}
    for concept in ALL:
        assert meanings.setdefault((concept.scheme, concept.value), concept.meaning) == concept.meaning


def test_every_lobe_group_and_score_has_a_concept() -> None:
    assert [LOBE_CONCEPTS[lobe.abbreviation].value for lobe in LOBES] == [
        "42400003",
        "72481006",
        "266005",
        "44714003",
        "41224006",
    ]
    assert set(SITES) == set(GROUPS)
    assert set(codes.SCORE_CONCEPTS) == {yang_score({}).name, pan_score({}).name}
    assert set(OPACITY_CONCEPTS) == set(codes.OPACITY_COLOURS)
