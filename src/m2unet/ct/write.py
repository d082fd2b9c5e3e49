"""Write images and masks in the geometry of the input they belong to, voxel for voxel."""

from __future__ import annotations

import errno
import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.ct.volume import Volume
from m2unet.errors import ScanError
from m2unet.files import atomic_path

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
_NOT_WHOLE = "the image could not be written whole"


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write the HU of a volume in its source's geometry.

    Args:
        volume: the scan.
        path: ending in .nii.gz, .nii, .mha or .nrrd; replaced atomically.

    Raises:
        ScanError: if the ending is another one.
    """
    _write(volume, volume.array, Path(path))


def write_mask(volume: Volume, mask: NDArray[Any], path: str | Path) -> None:
    """Write a mask of a volume in its source's geometry.

    Args:
        volume: the scan.
        mask: ``[z, y, x]`` on the volume's grid; bool becomes uint8.
        path: ending in .nii.gz, .nii, .mha or .nrrd; replaced atomically.

    Raises:
        ScanError: if the ending is another one, or the mask is not on the volume's grid.
    """
    _write(volume, mask.astype(np.uint8) if mask.dtype == np.bool_ else mask, Path(path))


def _write(volume: Volume, array: NDArray[Any], path: Path) -> None:
    import SimpleITK as sitk

    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise ScanError("Images are not written in this format", found=path.name, expected=", ".join(SUFFIXES))
    source = volume.source
    image = sitk.GetImageFromArray(volume.to_source(array))
    image.SetSpacing([float(step) for step in reversed(source.spacing_mm)])
    image.SetOrigin([float(at) for at in source.origin_mm])
    image.SetDirection([float(value) for value in source.direction.ravel()])
    sheared = not np.allclose(source.direction.T @ source.direction, np.eye(3), atol=1e-4)
    with atomic_path(path) as temporary:
        if not (sheared and suffix.startswith(".nii")):
            digest = _save(image, temporary, compress=suffix != ".nii")
            del image  # before the copy that is read back
            _check(temporary, digest)
            return
        image.SetDirection(np.eye(3).ravel().tolist())
        plain = temporary.with_name(temporary.name.removesuffix(".gz"))
        try:
            digest = _save(image, plain, compress=False)
            del image
            _check(plain, digest)
            data = _with_affine(plain.read_bytes(), volume)
        finally:
            plain.unlink(missing_ok=True)
        temporary.write_bytes(gzip.compress(data, 6) if suffix == ".nii.gz" else data)


def _save(image: Any, path: Path, *, compress: bool) -> bytes:
    """Write an image and give the digest of its voxels.

    Raises:
        OSError: if ITK says that it was not written.
    """
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(path), compress)
    except RuntimeError:
        raise OSError(errno.EIO, _NOT_WHOLE) from None
    return _digest(image)


def _check(path: Path, digest: bytes) -> None:
    """Read an image back: ITK does not notice every write that fails, on a full disk for one.

    Raises:
        OSError: if its voxels are not those that were written.
    """
    import SimpleITK as sitk

    try:
        same = _digest(sitk.ReadImage(str(path))) == digest
    except RuntimeError:
        same = False
    if not same:
        raise OSError(errno.EIO, _NOT_WHOLE)


def _digest(image: Any) -> bytes:
    """Of type, size and voxels; the caller keeps the image."""
    import SimpleITK as sitk

    view = sitk.GetArrayViewFromImage(image)
    told = hashlib.sha256(f"{view.dtype} {view.shape}".encode())
    told.update(view.data)
    return told.digest()


def _with_affine(data: bytes, volume: Volume) -> bytes:
    """A NIfTI-1 file whose only orientation is an affine (sform); ITK writes none that is sheared."""
    source = volume.source
    matrix = np.column_stack([source.direction * np.asarray(source.spacing_mm[::-1]), source.origin_mm])
    matrix[:2] *= -1  # NIfTI counts x to the right-hand side's opposite and y to the front: RAS
    header = bytearray(data[:348])
    header[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    header[280:328] = struct.pack("<12f", *matrix.ravel())
    return bytes(header) + data[348:]
