"""Read one scan: NIfTI, MHA/MHD, NRRD or a folder of DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError


def read_scan(path: str | Path) -> Volume:
    """Read a scan.

    Args:
        path: a file, or the folder of a DICOM series.

    Raises:
        QualityError: if the scan cannot be used; it carries the findings.
    """
    import SimpleITK as sitk  # noqa: N813 - its documented short name

    path = Path(path)
    if not path.exists():
        raise ScanError("There is no such scan", found=path.name)
    try:
        if path.is_dir():
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
            image = sitk.ReadImage(files)
        else:
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ScanError("The scan cannot be read", found=str(error).strip().splitlines()[-1]) from None
    array = np.maximum(sitk.GetArrayFromImage(image), -1024)
    x, y, z = image.GetSpacing()
    kind = "dicom" if path.is_dir() else {"mha": "mha", "mhd": "mha", "nrrd": "nrrd"}.get(path.suffix[1:], "nifti")
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    return from_source(array, (z, y, x), image.GetOrigin(), direction, format=kind, path=str(path))
