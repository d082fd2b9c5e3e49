"""Names of lobes in several languages and spellings, and what is none."""

from __future__ import annotations

import pytest

from m2unet.anatomy import AIRWAY, LOBES
from m2unet.cohort.mask_files.names import code_by_concept, codes_by_name, is_generic, names_a_part

SETS = {
    "abbreviations": ["RUL", "RML", "RLL", "LUL", "LLL"],
    "English": ["right upper lobe", "Right Middle Lobe", "RIGHT_LOWER_LOBE", "LeftUpperLobe", "left lung lower lobe"],
    "SNOMED": [lobe.snomed_meaning for lobe in LOBES],
    "TotalSegmentator": [
        "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "lung_upper_lobe_left",
        "lung_lower_lobe_left",
    ],
    "both": ["RUL right upper lobe", "RML (middle lobe)", "RLL", "LUL left upper lobe", "LLL lobe"],
    "superior and inferior": ["superior lobe right", "middle lobe", "inferior lobe right", "L superior", "L inferior"],
    "German": ["Oberlappen rechts", "Mittellappen", "rechter Unterlappen", "Linker Oberlappen", "Unterlappen links"],
    "German abbreviations": ["ROL", "RML", "RUL", "LOL", "LUL"],
    "French": ["lobe supérieur droit", "lobe moyen", "lobe inférieur droit", "lobe supérieur gauche", "LIG"],
    "Spanish": ["lobo superior derecho", "lobo medio", "lobo inferior derecho", "LSI", "lobo inferior izquierdo"],
    "Italian": ["lobo superiore destro", "lobo medio", "LID", "lobo superiore sinistro", "lobo inferiore sinistro"],
    "Portuguese": ["lobo superior direito", "LM", "lobo inferior direito", "lobo superior esquerdo", "LIE"],
    "Dutch": ["rechter bovenkwab", "middenkwab", "rechter onderkwab", "linker bovenkwab", "linker onderkwab"],
    "Chinese": ["右上叶", "右肺中叶", "右下叶", "左肺上叶", "左下叶"],
    "Japanese": ["右上葉", "右中葉", "右下葉", "左上葉", "左下葉"],
    "Korean": ["우상엽", "우중엽", "우하엽", "좌상엽", "좌하엽"],
    "Russian": [
        "верхняя доля правого легкого", "средняя доля", "нижняя доля правого легкого", "верхняя доля левого лёгкого",
        "нижняя доля левого легкого",
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", SETS)
def test_five_lobes_are_known_in_any_order(language: str) -> None:
    names = SETS[language]
    assert codes_by_name(names) == [1, 2, 3, 4, 5]
    assert codes_by_name(names[::-1]) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "name",
    ["lung", "left lung", "lung_left", "heart", "Segment_1", "RUL nodule", "ground glass in right upper lobe",
     "lingula", "left middle lobe", "upper lobe", "RUL and RML", "trachea", "right upper lobe vein", ""],
)  # fmt: skip
def test_other_names_are_no_lobes(name: str) -> None:
    assert codes_by_name([name]) == [None]


def test_airway_generic_names_and_parts() -> None:
    assert codes_by_name(["Airway", "airways", "trachea and bronchi"]) == [AIRWAY] * 3
    assert [is_generic(name) for name in ("Segment_1", "label 3", "7", "", "RUL", "lesion")] == [True] * 4 + [False] * 2
    assert [names_a_part(name) for name in ("lingula", "upper lobe", "heart", "Mittellappen?")] == [
        True,
        True,
        False,
        True,
    ]


def test_concepts_with_and_without_a_side() -> None:
    assert [code_by_concept("SCT", lobe.snomed_ct) for lobe in LOBES] == [1, 2, 3, 4, 5]
    right, left = "24028007", "7771000"
    assert [code_by_concept("SCT", "45653009", side) for side in (right, left, "")] == [1, 4, None]
    assert [code_by_concept("SCT", "90572001", side) for side in (right, left, "")] == [3, 5, None]
    assert code_by_concept("SRT", "T-28820", "G-A101") == 4 and code_by_concept("SRT", "T-28300") == 2
    assert code_by_concept("SCT", "39607008") is None and code_by_concept("99X", "42400003") is None
    assert code_by_concept("SCT", "89187006") == AIRWAY
