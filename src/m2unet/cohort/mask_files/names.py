"""Which lobe a segment is called after: abbreviations, names in several languages, TotalSegmentator's, SNOMED CT."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from types import MappingProxyType

from m2unet.anatomy import AIRWAY, LOBES

RUL, RML, RLL, LUL, LLL = (lobe.code for lobe in LOBES)


def _plain(text: str) -> str:
    """Lower case without accents."""
    apart = unicodedata.normalize("NFKD", text.lower())
    return unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))


def _listed(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


_RIGHT = _listed(
    "right r rt rechts rechter rechte rechten rechtes droit droite dexter dextra dextrum derecho derecha destro destra "
    "direito direita правый правая правого 右 우"
)
_LEFT = _listed(
    "left l lt links linker linke linken linkes gauche sinister sinistra sinistrum izquierdo izquierda sinistro "
    "esquerdo esquerda левый левая левого 左 좌"
)
_UPPER = _listed(
    "upper superior up sup ober oberer obere oberen superieur superieure superiore bovenste boven верхняя 上 상"
)
_MIDDLE = _listed(
    "middle mid medium medius mittel mittlerer mittlere mittleren moyen moyenne medio media middelste средняя 中 중"
)
_LOWER = _listed(
    "lower inferior low inf unter unterer untere unteren inferieur inferieure inferiore onderste onder нижняя 下 하"
)
_LOBE = _listed(
    "lobe lobes lobus lobo lob lappen lungenlappen kwab longkwab доля 叶 葉 엽 lung lungs lunge pulmo pulmon pulmonis "
    "pulmonary pulmonalis pulmonaire pulmonar polmonare poumon polmone pulmao long легкого легкое 肺 폐 of the de du "
    "del do der des la le il o mask seg segmentation"
)
_COMPOUNDS = MappingProxyType(
    {
        "oberlappen": ("ober", "lappen"), "mittellappen": ("mittel", "lappen"), "unterlappen": ("unter", "lappen"),
        "bovenkwab": ("boven", "kwab"), "middenkwab": ("middle", "kwab"), "middelkwab": ("middle", "kwab"),
        "onderkwab": ("onder", "kwab"), "upperlobe": ("upper", "lobe"), "middlelobe": ("middle", "lobe"),
        "lowerlobe": ("lower", "lobe"),
    }
)  # fmt: skip
_ENGLISH = {"rul": RUL, "rml": RML, "rll": RLL, "lul": LUL, "lll": LLL}
_GERMAN = {"rol": RUL, "rml": RML, "rul": RLL, "lol": LUL, "lul": LLL}
_OTHERS = {
    "lsd": RUL, "lmd": RML, "lm": RML, "lid": RLL, "lsg": LUL, "lig": LLL,  # French
    "lsi": LUL, "lii": LLL, "lss": LUL, "lis": LLL, "lse": LUL, "lie": LLL,  # Spanish, Italian, Portuguese
    "rbk": RUL, "rmk": RML, "rok": RLL, "lbk": LUL, "lok": LLL,  # Dutch
}  # fmt: skip
_AIRWAY_NAMES = frozenset(
    {"air", "airway", "airways", "airway structure", "trachea and bronchi", "trachea bronchi", "tracheobronchial tree"}
)
_GENERIC = re.compile(r"(segment|segm|seg|label|class|structure|roi|mask|object|region)?[ _-]*\d*", re.IGNORECASE)
_PART = re.compile(r"lob|lappen|kwab|lingul|\b[rl][uml]l\b|доля|叶|葉|엽", re.IGNORECASE)

_SCT_LOBES = {lobe.snomed_ct: lobe.code for lobe in LOBES} | {"40020002": RML}
_SCT_PAIRED = {
    ("45653009", "24028007"): RUL, ("45653009", "7771000"): LUL,
    ("90572001", "24028007"): RLL, ("90572001", "7771000"): LLL,
}  # fmt: skip
"""Upper and lower lobe of lung (DICOM CID 6170), with the side as a modifier."""
_SCT_AIRWAY = "89187006"
_SCT_OF_SRT = {
    "T-28300": "72481006", "T-28600": "44714003", "T-28820": "45653009", "T-28830": "90572001",
    "G-A100": "24028007", "G-A101": "7771000", "T-20001": _SCT_AIRWAY,
}  # fmt: skip


def codes_by_name(names: Sequence[str]) -> list[int | None]:
    """Our code of what each name of a file means, None where it is neither a lobe nor the airway.

    All names of a file are read together because an abbreviation can depend on the others: RUL is the right upper lobe,
    but beside ROL (rechter Oberlappen) it is the rechter Unterlappen, the right lower one.
    """
    spelled = [_words(name) for name in names]
    plain = {" ".join(words) for words in spelled}
    german = bool(plain & {"rol", "lol"}) and not plain & {"rll", "lll"}
    short = {**_OTHERS, **(_GERMAN if german else _ENGLISH)}
    return [_code(words, short) for words in spelled]


def code_by_concept(scheme: str, value: str, modifier: str = "") -> int | None:
    """Our code of a SNOMED concept (SCT or the older SRT), with the side as a modifier where the concept lacks it."""
    if scheme.upper() not in ("SCT", "SRT", "SNM3", "99SDM"):
        return None
    concept, side = _SCT_OF_SRT.get(value, value), _SCT_OF_SRT.get(modifier, modifier)
    if concept == _SCT_AIRWAY:
        return AIRWAY
    return _SCT_LOBES.get(concept) or _SCT_PAIRED.get((concept, side))


def is_generic(name: str) -> bool:
    """Whether a name says nothing, such as ``Segment_1``."""
    return _GENERIC.fullmatch(name.strip()) is not None


def names_a_part(name: str) -> bool:
    """Whether a name that is no lobe's sounds like a lobe or a part of one, such as ``lingula``."""
    return _PART.search(name) is not None


def _words(name: str) -> tuple[str, ...]:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    plain = re.sub(r"([\u3400-\u9fff\uac00-\ud7af])", r" \1 ", _plain(split))
    found: list[str] = []
    for word in re.findall(r"[^\W_]+", plain):
        found += _COMPOUNDS.get(word, (word,))
    return tuple(found)


def _code(words: tuple[str, ...], short: dict[str, int]) -> int | None:
    text = " ".join(words)
    if text in _AIRWAY_NAMES:
        return AIRWAY
    meant = {short[word] for word in words if word in short}
    rest = [word for word in words if word not in short]
    if any(word not in _RIGHT | _LEFT | _UPPER | _MIDDLE | _LOWER | _LOBE for word in rest):
        return None
    spelled = _spelled_out(rest)
    if spelled is not None:
        meant.add(spelled)
    elif any(word not in _LOBE for word in rest):
        return None  # a side or a level alone says too little
    return meant.pop() if len(meant) == 1 else None


def _spelled_out(words: Sequence[str]) -> int | None:
    right, left = (any(word in side for word in words) for side in (_RIGHT, _LEFT))
    upper, middle, lower = (any(word in level for word in words) for level in (_UPPER, _MIDDLE, _LOWER))
    if (right and left) or upper + middle + lower != 1:
        return None
    if middle:
        return None if left else RML
    if not right and not left:
        return None
    if upper:
        return RUL if right else LUL
    return RLL if right else LLL
