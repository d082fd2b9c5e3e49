"""What makes an object reproducible: its time, its numbers, and UIDs that follow from its content."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from m2unet.export.source import SourceSeries, quiet
from m2unet.export.uids import PLACEHOLDER_INSTANCE_UID, PLACEHOLDER_SERIES_UID, derive_uid
from m2unet.files import atomic_path

if TYPE_CHECKING:
    from pydicom import Dataset

UNKNOWN_MOMENT = datetime(1900, 1, 1)
"""Content date of objects whose source study has no date at all: the attribute must not be empty."""


def _moment(date: str, time: str) -> datetime | None:
    """A DICOM date and time; midnight where the time is empty, None if either is malformed."""
    from pydicom.valuerep import DA, TM

    try:
        day, clock = DA(date), TM(time)
        if day is None:
            return None
        return datetime.combine(day, clock if clock is not None else datetime.min.time())
    except (ValueError, TypeError):
        return None


def content_moment(source: SourceSeries, when: datetime | None) -> datetime:
    """Content date and time: the one given, else the source study's, series', acquisition's or image's."""
    if when is not None:
        return when
    header = source.first
    for level in ("Study", "Series", "Acquisition", "Content"):
        found = _moment(str(header.get(f"{level}Date") or ""), str(header.get(f"{level}Time") or ""))
        found = found or _moment(str(header.get(f"{level}Date") or ""), "")
        if found is not None:
            return found
    return UNKNOWN_MOMENT


def series_number(source: SourceSeries, given: int | None, offset: int) -> int:
    """The number given, else a hundred times the source's plus ``offset``, else 9000 plus it."""
    if given is not None:
        return given
    try:
        number = int(source.first.get("SeriesNumber"))
    except (TypeError, ValueError):
        number = 0
    return number * 100 + offset if 0 < number < 10_000_000 else 9000 + offset


def seal(dataset: Dataset, source: SourceSeries, when: datetime | None, path: Path) -> None:
    """Make an object reproducible, name it by its content, and write it atomically.

    Clock readings and random UIDs are replaced; then the series and SOP instance UIDs are derived from the source's
    SOP instance UIDs and from every byte of the object, so the same input gives the same file and another one another
    UID.

    Args:
        dataset: a complete object whose series and SOP instance UIDs are placeholders.
        source: the series it belongs to.
        when: content date and time; see :func:`content_moment`.
        path: file to write or replace.
    """
    from pydicom import dcmwrite

    moment = content_moment(source, when)
    dataset.PatientName = source.patient_name
    dataset.ContentDate, dataset.ContentTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        if name in dataset:
            delattr(dataset, name)
    for item in dataset.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    dimensions = derive_uid("dimensions", *source.uids)
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(sequence) or ():
            item.DimensionOrganizationUID = dimensions
    with quiet():
        encoded = io.BytesIO()
        dcmwrite(encoded, dataset, enforce_file_format=True)
    body = encoded.getvalue()  # encoding an object takes long, so the UIDs are put into what is encoded
    content = hashlib.sha256(body).hexdigest()
    dataset.SeriesInstanceUID = derive_uid("series", *source.uids, content)
    dataset.SOPInstanceUID = derive_uid("instance", *source.uids, content)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    body = body.replace(PLACEHOLDER_SERIES_UID.encode(), dataset.SeriesInstanceUID.encode())
    body = body.replace(PLACEHOLDER_INSTANCE_UID.encode(), dataset.SOPInstanceUID.encode())
    with atomic_path(path) as temporary:
        temporary.write_bytes(body)
