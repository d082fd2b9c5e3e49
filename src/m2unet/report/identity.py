"""Who the patient is, read from the scan's DICOM headers only when a reader asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from m2unet.ct.dicom import quiet
from m2unet.ct.volume import Volume


@dataclass(frozen=True)
class Identity:
    """What the headers say of the patient; None where they are silent.

    Attributes:
        name, patient_id: as they stand there.
        birth_date, study_date: ``YYYY-MM-DD`` where the header's date is whole.
    """

    name: str | None = None
    patient_id: str | None = None
    birth_date: str | None = None
    study_date: str | None = None

    def lines(self) -> list[tuple[str, str | None]]:
        """Terms and their values, for a reader."""
        return [
            ("Patient", self.name),
            ("ID", self.patient_id),
            ("Born", self.birth_date),
            ("Study of", self.study_date),
        ]


@quiet()
def read_identity(volume: Volume) -> Identity:
    """Read the identity from the first DICOM file of a scan; empty for any other scan.

    A volume itself carries none, so that nothing can leak without being asked for.
    """
    files = volume.source.header.get("files") or ()
    if not files:
        return Identity()
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    tags = ["PatientName", "PatientID", "PatientBirthDate", "StudyDate", "SpecificCharacterSet"]
    try:
        header = dcmread(files[0], stop_before_pixels=True, specific_tags=tags)
    except (OSError, InvalidDicomError):
        return Identity()

    def text(name: str) -> str | None:
        return str(header.get(name) or "").strip() or None

    name = text("PatientName")
    return Identity(
        None if name is None else ", ".join(part for part in name.split("^") if part),
        text("PatientID"),
        _date(text("PatientBirthDate")),
        _date(text("StudyDate")),
    )


def _date(text: str | None) -> str | None:
    if text is None or len(text) != 8 or not text.isdigit():
        return text
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
