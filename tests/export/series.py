"""Small CT series whose voxels say which lobe and which opacity they are, so that a mask's way can be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from m2unet.ct.read import load
from m2unet.ct.volume import Volume

AXIAL = (1, 0, 0, 0, 1, 0)
Change = Callable[[Dataset, int], None]


@dataclass(frozen=True)
class Case:
    """A series read back, with the masks that its voxels spell out, on the volume's grid."""

    folder: Path
    volume: Volume
    lobes: NDArray[np.uint8]
    opacity: NDArray[np.uint8]

    def expected(self) -> dict[str, NDArray[np.int64]]:
        """Of each file as it is, by SOP instance UID: lobe code + 10 x opacity code, row by column."""
        found = {}
        for path in self.folder.iterdir():
            header = dcmread(path)
            found[str(header.SOPInstanceUID)] = header.pixel_array.astype(np.int64)
        return found


def spelled(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint16]:
    """``[slice, row, column]`` lobe code + 10 x opacity code, without any symmetry."""
    rng = np.random.default_rng(seed)
    lobes = rng.integers(0, 6, shape)
    return (lobes + 10 * np.where(lobes > 0, rng.integers(0, 3, shape), 0)).astype(np.uint16)


def write_series(
    folder: Path,
    values: NDArray[np.uint16],
    *,
    orientation: tuple[float, ...] = AXIAL,
    step: tuple[float, float, float] = (0.0, 0.0, 3.0),
    spacing_mm: tuple[float, float] = (0.8, 0.7),
    change: Change | None = None,
) -> None:
    """Write one file a slice: slice k lies at k steps, its numbers and names run the other way."""
    folder.mkdir(parents=True)
    for index, plane in enumerate(values):
        header = _slice(plane, len(values) - index)
        header.ImageOrientationPatient = [f"{value:.9g}" for value in orientation]
        header.ImagePositionPatient = [f"{-20.5 + index * value:.9g}" for value in step]
        header.PixelSpacing = list(spacing_mm)
        header.SliceThickness = "3"
        if change is not None:
            change(header, index)
        header.save_as(folder / f"{len(values) - index:03d}.dcm", enforce_file_format=True)


def make_case(folder: Path, shape: tuple[int, int, int] = (6, 12, 11), **options: object) -> Case:
    """Write a series and read it as a user would."""
    write_series(folder, spelled(shape), **options)  # type: ignore[arg-type]
    return read_case(folder)


def read_case(folder: Path) -> Case:
    volume = load(folder).volume
    assert volume is not None
    return Case(folder, volume, (volume.array % 10).astype(np.uint8), (volume.array // 10).astype(np.uint8))


def _slice(plane: NDArray[np.uint16], number: int) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"1.2.826.0.1.77.{number}"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.826.0.1.5", "1.2.826.0.1.6"
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = "1.2.826.0.1.7", ""
    header.StudyDate, header.StudyTime, header.AccessionNumber, header.StudyID = "20200301", "101530", "A1", "S1"
    header.PatientID, header.PatientName = "secret-id", "Müller^Zoë"
    header.PatientBirthDate, header.PatientSex, header.ReferringPhysicianName = "19500102", "F", "Doctor^Secret"
    header.Modality, header.Manufacturer, header.SeriesNumber, header.InstanceNumber = "CT", "Maker", 3, number
    header.KVP, header.AcquisitionNumber = "120", 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = plane.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleSlope, header.RescaleIntercept = 1, 0
    header.PixelData = plane.astype("<u2").tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header
