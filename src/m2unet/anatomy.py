"""The one table of lung lobes: codes, names, sides, colours, SNOMED CT concepts, and other tools' codes.

Everything that names, colours or recodes a lobe reads it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Lobe:
    """One lobe of the lung.

    Attributes:
        code: value in this package's lobe masks, 1-5.
        abbreviation: the radiologist's short form, e.g. ``RUL``.
        name: full English name, lower case.
        side: patient side.
        colour: display colour, sRGB 0-255.
        snomed_ct: SNOMED CT concept identifier of the structure.
        snomed_meaning: its code meaning, for DICOM.
    """

    code: int
    abbreviation: str
    name: str
    side: Side
    colour: tuple[int, int, int]
    snomed_ct: str
    snomed_meaning: str


# Colours: the Okabe-Ito palette, told apart with any form of colour vision.
LOBES: tuple[Lobe, ...] = (
    Lobe(1, "RUL", "right upper lobe", "right", (230, 159, 0), "42400003", "Upper lobe of right lung"),
    Lobe(2, "RML", "right middle lobe", "right", (0, 158, 115), "72481006", "Middle lobe of right lung"),
    Lobe(3, "RLL", "right lower lobe", "right", (86, 180, 233), "266005", "Lower lobe of right lung"),
    Lobe(4, "LUL", "left upper lobe", "left", (213, 94, 0), "44714003", "Upper lobe of left lung"),
    Lobe(5, "LLL", "left lower lobe", "left", (0, 114, 178), "41224006", "Lower lobe of left lung"),
)

BACKGROUND = 0
AIRWAY = 6
"""Code of the optional seventh class (trachea, bronchi, other); classes 0-6 in the paper's network."""

UNDECIDED = 255
"""In masks to train on: nobody says which lobe it is; such pixels are left out of the lobe loss."""

LOBE_CODES: tuple[int, ...] = tuple(lobe.code for lobe in LOBES)
LOBE_BY_ABBREVIATION = MappingProxyType({lobe.abbreviation: lobe for lobe in LOBES})
LOBE_BY_CODE = MappingProxyType({lobe.code: lobe for lobe in LOBES})
RIGHT_CODES: tuple[int, ...] = tuple(lobe.code for lobe in LOBES if lobe.side == "right")
LEFT_CODES: tuple[int, ...] = tuple(lobe.code for lobe in LOBES if lobe.side == "left")

CODES_BY_NAME: MappingProxyType[str, int] = MappingProxyType(
    {**{lobe.abbreviation: lobe.code for lobe in LOBES}, "airway": AIRWAY}
)
"""Every code of a written lobe mask by its name."""

CodeSystem = Literal["auto", "m2unet", "lungmask", "totalsegmentator-v1", "totalsegmentator-v2", "luna16", "lola11"]
"""Whose codes a lobe mask uses; ``auto`` finds out from the values and where they lie."""

# Other tools' code -> ours. LUNA16 (Tang et al. 2019) codes are the low byte of the stored value.
CODE_MAPS: MappingProxyType[CodeSystem, MappingProxyType[int, int]] = MappingProxyType(
    {
        "m2unet": MappingProxyType({1: 1, 2: 2, 3: 3, 4: 4, 5: 5, AIRWAY: AIRWAY}),
        "lungmask": MappingProxyType({1: 4, 2: 5, 3: 1, 4: 2, 5: 3}),
        "totalsegmentator-v1": MappingProxyType({13: 4, 14: 5, 15: 1, 16: 2, 17: 3}),
        "totalsegmentator-v2": MappingProxyType({10: 4, 11: 5, 12: 1, 13: 2, 14: 3}),
        "luna16": MappingProxyType({4: 1, 5: 2, 6: 3, 7: 4, 8: 5}),
        "lola11": MappingProxyType({10: 4, 11: 5, 20: 1, 21: 2, 22: 3}),
    }
)
CODE_SYSTEMS: tuple[CodeSystem, ...] = ("auto", *CODE_MAPS)
