"""Small chests and DICOM series made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

Change = Callable[[Dataset, int], None]


def chest(
    shape: tuple[int, int, int] = (20, 96, 112),
    spacing_mm: tuple[float, float, float] = (10.0, 4.0, 4.0),
    *,
    noise: float = 15.0,
    seed: int = 0,
) -> NDArray[np.int16]:
    """An elliptic trunk with fat, wall, heart, two lungs, airway and a table apart from it; HU, [z, y, x]."""
    z, y, x = (axis.astype(np.float32) for axis in np.indices(shape, sparse=True))
    mm_y, mm_x = (y - shape[1] * 0.46) * spacing_mm[1], (x - shape[2] / 2) * spacing_mm[2]
    mm_z = (z - (shape[0] - 1) / 2) * spacing_mm[0]
    scale = min(shape[1] * spacing_mm[1] / 384, shape[2] * spacing_mm[2] / 448)
    tall = shape[0] * spacing_mm[0] / 200
    array = np.full(shape, -1000.0, dtype=np.float32)

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
        cz, cy, cx = centre[0] * tall, centre[1] * scale, centre[2] * scale
        rz, ry, rx = radii[0] * tall, radii[1] * scale, radii[2] * scale
        return ((mm_z - cz) / rz) ** 2 + ((mm_y - cy) / ry) ** 2 + ((mm_x - cx) / rx) ** 2 <= 1

    array[np.broadcast_to(ellipsoid((0, 0, 0), (1e6, 130, 190)), shape)] = -100
    array[np.broadcast_to(ellipsoid((0, 0, 0), (1e6, 115, 172)), shape)] = 45
    for side in (-1, 1):
        array[ellipsoid((0, 0, side * 80), (88, 90, 62))] = -850
    array[np.broadcast_to(ellipsoid((0, 0, 0), (1e6, 9, 9)), shape) & (mm_z > 0)] = -1000
    table = (mm_y > 150 * scale) & (mm_y < 165 * scale) & (np.abs(mm_x) < 180 * scale)
    array[np.broadcast_to(table, shape)] = 150
    array += np.random.default_rng(seed).normal(0, noise, shape)
    return np.rint(array).clip(-1024, 3071).astype(np.int16)


def write_series(
    folder: Path,
    array: NDArray[np.int16],
    spacing_mm: tuple[float, float, float] = (10.0, 4.0, 4.0),
    *,
    change: Change | None = None,
    series: str = "1",
    orientation: Iterable[float] = (1, 0, 0, 0, 1, 0),
    step: Iterable[float] | None = None,
    origin: tuple[float, float, float] = (-200.0, -150.0, -300.0),
) -> list[Path]:
    """Write a CT series, one file a slice, intercept -1024; ``change`` may alter each header before it is saved."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.asarray(list(orientation), dtype=float)
    along = np.asarray([0, 0, spacing_mm[0]] if step is None else list(step), dtype=float)
    paths = []
    for index, plane in enumerate(array):
        header = slice_header(plane, index, series)
        header.ImageOrientationPatient = [f"{value:.10g}" for value in axes]
        header.ImagePositionPatient = [f"{value:.10g}" for value in np.asarray(origin) + index * along]
        header.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        header.SliceThickness = spacing_mm[0]
        if change is not None:
            change(header, index)
        paths.append(folder / f"{series}_{len(array) - index:04d}.dcm")  # names run against the slices' order
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def slice_header(plane: NDArray[np.int16], index: int, series: str = "1") -> Dataset:
    """One CT slice without geometry, values stored unsigned with intercept -1024."""
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"1.2.3.4.{series}.{index + 1}"
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", f"1.2.3.4.{series}"
    header.FrameOfReferenceUID = "1.2.3.9"
    header.PatientID, header.PatientName = "secret-id", "Secret^Name"
    header.Modality, header.Manufacturer, header.ConvolutionKernel = "CT", "Maker", "STANDARD"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SeriesNumber, header.InstanceNumber = int(series), index + 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = plane.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, -1024, "HU"
    header.PixelData = (plane.astype(np.int32) + 1024).clip(0).astype("<u2").tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header
