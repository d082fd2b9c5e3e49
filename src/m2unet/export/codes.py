"""Every coded concept that goes into a DICOM object, in one table.

SNOMED CT identifiers of the lobes come from :mod:`m2unet.anatomy`. What no public terminology names (the two scores,
the share of opacity, the probability of severe disease) has a code of the private scheme ``99M2UNET``, declared in
each object that uses it (DICOM PS3.3 C.12.1, Coding Scheme Identification).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

from m2unet.anatomy import LOBES

PRIVATE_SCHEME = "99M2UNET"
"""Designators that begin with 99 are private (PS3.16, section 8)."""


class Concept(NamedTuple):
    """A coded concept.

    Attributes:
        value: code value, at most 16 characters.
        scheme: coding scheme designator: SCT, DCM, UCUM, LN or the private one.
        meaning: its name, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str

    def coded(self) -> Any:
        """As highdicom's ``CodedConcept``."""
        from highdicom.sr import CodedConcept

        return CodedConcept(self.value, self.scheme, self.meaning)


ANATOMICAL_STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")
MORPHOLOGICALLY_ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")

LUNG = Concept("39607008", "SCT", "Lung")
LOBE_CONCEPTS = MappingProxyType(
    {lobe.abbreviation: Concept(lobe.snomed_ct, "SCT", lobe.snomed_meaning) for lobe in LOBES}
)
"""Lobes by abbreviation."""

SITES = MappingProxyType(
    {
        **LOBE_CONCEPTS,
        "right": Concept("3341006", "SCT", "Right lung"),
        "left": Concept("44029006", "SCT", "Left lung"),
        "lungs": Concept("74101002", "SCT", "Both lungs"),
    }
)
"""Sites of measurements, by the names of :data:`m2unet.quantify.lobes.GROUPS`."""

GROUND_GLASS = Concept("1217294009", "SCT", "Ground glass lung opacity")
CONSOLIDATION = Concept("95436008", "SCT", "Lung consolidation")
OPACITY_CONCEPTS = MappingProxyType({"ground_glass": GROUND_GLASS, "consolidation": CONSOLIDATION})
OPACITY_COLOURS = MappingProxyType({"ground_glass": (240, 228, 66), "consolidation": (204, 121, 167)})
"""sRGB 0-255: the two colours of the Okabe-Ito palette that no lobe has."""

VOLUME = Concept("118565006", "SCT", "Volume")
ATTENUATION = Concept("112031", "DCM", "Attenuation Coefficient")
MEAN = Concept("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Concept("386136009", "SCT", "Standard Deviation")
SEVERITY = Concept("246112005", "SCT", "Severity")
COMMENT = Concept("121106", "DCM", "Comment")
CT_OF_CHEST = Concept("24627-2", "LN", "CT Chest")
ARTIFICIAL_INTELLIGENCE = Concept("123110", "DCM", "Artificial Intelligence")
NEIGHBOURHOOD_ANALYSIS = Concept("123101", "DCM", "Neighborhood Analysis")

OPACITY_PERCENT = Concept("OPACITY_PERCENT", PRIVATE_SCHEME, "Opacified share of volume")
CT_SEVERITY_SCORE = Concept("CT_SEVERITY_0_40", PRIVATE_SCHEME, "CT severity score, 20 regions, 0-40 (Yang 2020)")
LOBAR_SCORE = Concept("LOBAR_SCORE_0_25", PRIVATE_SCHEME, "Lobar CT score, 5 lobes, 0-25 (Pan 2020)")
PROBABILITY_SEVERE = Concept("P_SEVERE", PRIVATE_SCHEME, "Probability of severe COVID-19 from chest CT")
COMPLETENESS = Concept("COMPLETENESS", PRIVATE_SCHEME, "Completeness of the measured structure")
INCOMPLETE = Concept("INCOMPLETE", PRIVATE_SCHEME, "Incomplete: cut off or partly absent")
SCORE_CONCEPTS = MappingProxyType({"ct-severity-score": CT_SEVERITY_SCORE, "lobar-ct-score": LOBAR_SCORE})
"""Scores by their names in :mod:`m2unet.quantify.scores`."""

MILLILITRE = Concept("ml", "UCUM", "ml")
PERCENT = Concept("%", "UCUM", "Percent")
HOUNSFIELD = Concept("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = Concept("1", "UCUM", "no units")
SCORE_UNIT = Concept("{score}", "UCUM", "score")


def private_scheme() -> Any:
    """The declaration of the private scheme, for ``CodingSchemeIdentificationSequence``."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME,
        name="Concepts of m2unet that no public terminology names",
        responsible_organization="m2unet project",
    )
