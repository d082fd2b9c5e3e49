"""A phantom scan as a DICOM CT series, one file a slice."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from m2unet import __version__
from m2unet.phantom.cohort import PatientPlan, ScanPlan
from m2unet.phantom.protocol import SITES
from m2unet.phantom.scan import PhantomScan

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_INTERCEPT = -1024


def write_series(made: PhantomScan, patient: PatientPlan, folder: Path) -> None:
    """Write a scan as explicit little-endian CT slices, all or nothing.

    Stored values are HU + 1024, signed, with the site's padding value declared. Identifiers are derived from the
    plan's seeds, so the same plan gives the same files; names and dates are invented.

    Args:
        made: the scan.
        patient: whose it is.
        folder: to be made or replaced.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        common = _common(made, patient)
        for index, pixels in enumerate(made.stored):
            _slice(made, common, index, pixels).save_as(temporary / f"{index + 1:04d}.dcm", enforce_file_format=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def uid(*parts: object) -> str:
    """A valid DICOM UID (2.25 and a 128-bit number) that depends on ``parts`` alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _common(made: PhantomScan, patient: PatientPlan) -> Any:
    """Everything that is the same in all slices."""
    from pydicom.dataset import Dataset

    scan, source = made.plan, made.volume.source
    site = SITES[scan.protocol.site]
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.SOPClassUID = _CT_IMAGE
    day = scan.date.strftime("%Y%m%d")
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = day
    common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = "120000"
    common.AccessionNumber = ""
    common.Modality = "CT"
    common.Manufacturer = "m2unet phantom (synthetic)"
    common.InstitutionName = site.name
    common.ReferringPhysicianName = ""
    common.SeriesDescription = f"synthetic chest, {scan.protocol.kernel.name} kernel"
    common.ManufacturerModelName = site.scanner
    common.PatientName = f"Phantom^{patient.patient_id}"
    common.PatientID = patient.patient_id
    common.PatientBirthDate = ""
    common.PatientSex = patient.anatomy.sex
    common.PatientAge = f"{patient.age:03d}Y"
    common.BodyPartExamined = "CHEST"
    common.KVP = "120"
    common.SliceThickness = _decimal(scan.protocol.thickness_mm)
    common.SpacingBetweenSlices = _decimal(source.spacing_mm[0])
    common.SoftwareVersions = __version__
    common.ConvolutionKernel = scan.protocol.kernel.name.upper()
    common.PatientPosition = "HFS"
    common.StudyInstanceUID = uid("study", patient.seed, scan.scan_id)
    common.SeriesInstanceUID = _series_uid(scan)
    common.FrameOfReferenceUID = uid("frame", scan.seed, scan.scan_id)
    common.StudyID = "1"
    common.SeriesNumber = "1"
    common.AcquisitionNumber = "1"
    common.PositionReferenceIndicator = ""
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = source.shape[1], source.shape[2]
    common.PixelSpacing = [_decimal(source.spacing_mm[1]), _decimal(source.spacing_mm[2])]
    common.ImageOrientationPatient = [_decimal(v) for v in (*source.direction[:, 0], *source.direction[:, 1])]
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = 1
    common.PixelPaddingValue = site.padding - _INTERCEPT
    common.RescaleIntercept, common.RescaleSlope, common.RescaleType = str(_INTERCEPT), "1", "HU"
    common.WindowCenter, common.WindowWidth = "-600", "1500"
    return common


def _slice(made: PhantomScan, common: Any, index: int, pixels: np.ndarray) -> Any:
    import copy

    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    source = made.volume.source
    corner = np.asarray(source.origin_mm) + index * source.spacing_mm[0] * source.direction[:, 2]
    item = copy.copy(common)
    item.SOPInstanceUID = uid("slice", made.plan.seed, made.plan.scan_id, index)
    item.InstanceNumber = str(index + 1)
    item.ImagePositionPatient = [_decimal(value) for value in corner]
    item.SliceLocation = _decimal(float(corner[2]))
    item.PixelData = (pixels.astype(np.int32) - _INTERCEPT).astype("<i2").tobytes()
    item.file_meta = FileMetaDataset()
    item.file_meta.MediaStorageSOPClassUID = _CT_IMAGE
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return item


def _series_uid(scan: ScanPlan) -> str:
    return uid("series", scan.seed, scan.scan_id)


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{float(value):.10g}"[:16]
