"""Find in the headers of DICOM, NIfTI, NRRD and MetaImage what they say of the patient."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from m2unet.ct.patient import PatientWords, free_words, patient_words

_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson")
_IDS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "AdmissionID", "MedicalRecordLocator")
_BIRTHS = ("PatientBirthDate",)
_STUDIES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
_MORE_IDS = "OtherPatientIDsSequence"
_REMOVED = "PatientIdentityRemoved"
_HEAD = 1 << 18
_MOST = 1 << 16
_KEY = re.compile(r"^([^:=\n]{1,80}?)\s*(?::=|:|=)\s*(.*)$")
_NOT_OF_A_PATIENT = """
    anatomicalorientation axismaxs axismins binarydata binarydatabyteordermsb byteskip centerings
    centerofrotation centers compresseddata compresseddatasize datafile dimension dimsize directions
    elementbyteordermsb elementdatafile elementmax elementmin elementnumberofchannels elementsize elementspacing
    elementtype encoding endian headersize itkinputfilter kinds lineskip max measurementframe min ndims
    objecttype offset oldmax oldmin orientation origin position sizes space spacedimension spacedirections
    spaceorigin spaceunits spacings thicknesses transformmatrix type units
"""
_GEOMETRY = frozenset(_NOT_OF_A_PATIENT.split())
_DICOM_KEYS = {
    "00100010": "name", "00101001": "name", "00101005": "name", "00100020": "id", "00101000": "id", "00080050": "id",
    "00100030": "birth", "00080020": "study", "00080021": "study", "00080022": "study",
}  # fmt: skip


def dicom_words(files: Iterable[Path]) -> PatientWords:
    """What the headers of DICOM files say of the patient; files that cannot be parsed say nothing."""
    return reduce(or_, map(_dicom_words, files), PatientWords())


def _dicom_words(file: Path) -> PatientWords:
    from pydicom import dcmread

    from m2unet.ct.dicom import quiet

    tags = [*_NAMES, *_IDS, *_BIRTHS, *_STUDIES, _MORE_IDS, _REMOVED]
    try:
        with quiet():  # pydicom's warnings quote values
            header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(tags))
            others = [str(item.get("PatientID") or "") for item in header.get(_MORE_IDS) or []]
            removed = str(header.get(_REMOVED) or "").strip().upper() == "YES"
            return patient_words(
                names=_values(header, _NAMES),
                ids=[*_values(header, _IDS), *others],
                births=_values(header, _BIRTHS),
                studies=_values(header, _STUDIES),
                removed=removed,
            )
    except Exception:  # a damaged file can make the parser fail in any way
        return PatientWords()


def _values(header: Any, names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        value = header.get(name)
        several = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
        found += [str(one) for one in several if one not in (None, "")]
    return found


def nifti_words(path: Path) -> PatientWords:
    """What the texts of a NIfTI or Analyze header say: description, auxiliary file, database name, extensions."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(_MOST)
    except (OSError, EOFError, zlib.error):
        return PatientWords()
    second = any(len(data) >= 4 and struct.unpack(order + "i", data[:4])[0] == 540 for order in "<>")
    fields = [(240, 320), (320, 344), (508, 524)] if second else [(14, 32), (148, 228), (228, 252), (328, 344)]
    texts = [data[start:stop].split(b"\0")[0].decode("latin-1") for start, stop in fields]
    return reduce(or_, map(_text_words, [*texts, *_extensions(data, 540 if second else 348)]), PatientWords())


def _extensions(data: bytes, start: int) -> Iterator[str]:
    """Texts of a NIfTI header's extensions: DICOM (code 2) and comments (code 6)."""
    if len(data) < start + 4 or not data[start]:
        return
    order = "<" if struct.unpack("<i", data[:4])[0] in (348, 540) else ">"
    at = start + 4
    while at + 8 <= len(data):
        size, code = struct.unpack(order + "ii", data[at : at + 8])
        if size < 16 or size % 16:
            return
        if code in (2, 6):
            yield data[at + 8 : at + size].decode("utf-8", "replace")
        at += size


def key_value_words(path: Path) -> PatientWords:
    """What the keys and comments of a NRRD or MetaImage header say."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return PatientWords()
    head = head.partition(b"\n\n")[0] if head[:4] == b"NRRD" else head.partition(b"ElementDataFile")[0]
    found = PatientWords()
    for line in head[:_MOST].decode("utf-8", "replace").splitlines():
        if "teem.sourceforge.net" in line:
            continue
        match = _KEY.match(line.strip().removeprefix("#"))
        if match is None:
            found |= _text_words(line) if line.startswith("#") and "NRRD" not in line else PatientWords()
        elif re.sub(r"[^a-z0-9]", "", match[1].lower()) not in _GEOMETRY:
            found |= _pair_words(match[1], match[2])
    return found


def _pair_words(key: str, value: str) -> PatientWords:
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    kind = next((kind for tag, kind in _DICOM_KEYS.items() if plain.endswith(tag)), None)
    if kind is None and "birth" in plain:
        kind = "birth"
    if kind is None and "patient" in plain and "name" in plain:
        kind = "name"
    if kind is None and (("patient" in plain and plain.endswith(("id", "number"))) or "accession" in plain):
        kind = "id"
    if kind is None and "study" in plain and "date" in plain:
        kind = "study"
    if kind is None:
        return _text_words(value)
    given = {"name": "names", "id": "ids", "birth": "births", "study": "studies"}[kind]
    return patient_words(**{given: [value]})  # type: ignore[arg-type]


def _text_words(text: str) -> PatientWords:
    """A free text; one that is built as DICOM builds names is taken for one."""
    found = free_words(text)
    named = re.findall(r"[^\W\d_]+\^[^\W\d_^]+", text)
    return found | patient_words(names=named)
