"""Peak memory and time of ``m2unet predict`` by the number of slices.

    python benchmarks/memory.py SCAN [--model runs/demo] [--dicom] --slices 100 300 700 --out memory.md

The scan is stretched or squeezed along z to each number of slices, its plane brought to 512 x 512, and predicted by a
process of its own, whose peak resident memory the kernel reports. All else (report, view, masks; with ``--dicom`` the
segmentation and the structured report) is written as usual. Without ``--model`` it is the lobe model that ships.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from m2unet.ct.read import read_scan

SIDE = 512
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def stretched(scan: Path, slices: int, path: Path) -> None:
    """Write the scan with so many slices of 512 x 512 over the same extent, linearly interpolated.

    Args:
        scan: any scan.
        slices: how many.
        path: a file, or a folder to make for a DICOM series.
    """
    volume = read_scan(scan)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    size = (SIDE, SIDE, slices)
    spacing = [old * step / new for old, step, new in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    grid = sitk.Image(size, sitk.sitkInt16)
    grid.SetSpacing(spacing)
    made = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, -1024)
    if path.suffix:
        sitk.WriteImage(made, str(path))
    else:
        write_series(sitk.GetArrayViewFromImage(made), spacing, path)


def write_series(array: np.ndarray, spacing: list[float], folder: Path) -> None:
    """Write an axial CT series without a patient, explicit little endian; spacing ``(x, y, z)``."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    study, series, frame = (generate_uid(entropy_srcs=[part]) for part in ("study", "series", "frame"))
    for z, plane in enumerate(array):
        slice_ = Dataset()
        slice_.SOPClassUID, slice_.SOPInstanceUID = CT_IMAGE, generate_uid(entropy_srcs=["slice", str(z)])
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.Modality, slice_.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.PatientName = slice_.PatientID = slice_.PatientBirthDate = slice_.PatientSex = ""
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20200101", "120000", "1", ""
        slice_.Manufacturer = slice_.ReferringPhysicianName = slice_.PositionReferenceIndicator = ""
        slice_.SeriesNumber, slice_.InstanceNumber = 1, z + 1
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [0, 0, f"{z * spacing[2]:.5f}"]
        slice_.PixelSpacing = [f"{spacing[1]:.5f}", f"{spacing[0]:.5f}"]
        slice_.SliceThickness = f"{spacing[2]:.5f}"
        slice_.Rows, slice_.Columns = plane.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept, slice_.RescaleType = 1, 0, "HU"
        slice_.PixelData = np.ascontiguousarray(plane).tobytes()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.save_as(folder / f"{z:04d}.dcm", enforce_file_format=True)


def predict(scan: Path, model: Path | None, out: Path) -> tuple[float, dict[str, float]]:
    """Peak resident memory (MiB) of the prediction's process, and the seconds of its stages."""
    call = [sys.executable, "-m", "m2unet", "predict", str(scan), "--out", str(out)]
    call += [] if model is None else ["--model", str(model)]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"predict failed on {scan.name}")
    result = json.loads((out / scan.stem / "result.json").read_text(encoding="utf-8"))
    return usage.ru_maxrss / 1024, {**result["seconds"], "cpu": usage.ru_utime + usage.ru_stime}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", type=Path, help="a run folder; the lobe model that ships if left out")
    parser.add_argument("--dicom", action="store_true", help="predict a DICOM series instead of an MHA file")
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 700])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["| slices of 512 x 512 | voxels, MiB as int16 | peak, MiB | CPU, s |", "|---:|---:|---:|---:|"]
    peaks = []
    for slices in options.slices:
        with tempfile.TemporaryDirectory() as folder:
            scan = Path(folder) / (str(slices) if options.dicom else f"{slices}.mha")
            # in a process of its own: the kernel counts the memory of the process that starts another as the other's
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                apart.submit(stretched, options.scan, slices, scan).result()
            peak, seconds = predict(scan, options.model, Path(folder) / "out")
        peaks.append(peak)
        volume = slices * SIDE * SIDE * 2 / 2**20
        lines.append(f"| {slices} | {volume:.0f} | {peak:.0f} | {seconds['cpu']:.0f} |")
        print(lines[-1], {name: round(value, 1) for name, value in seconds.items()}, flush=True)
    if len(peaks) > 1:
        slope = np.polyfit(np.array(options.slices) * SIDE * SIDE / 2**20, peaks, 1)[0]
        lines.append(f"\nGrowth: {slope:.1f} bytes a voxel; the volume itself is 2, lobes and opacities 1 each.")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
