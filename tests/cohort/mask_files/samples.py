"""A chest with lobes, and files of it as other tools write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from m2unet.anatomy import LOBES
from m2unet.ct.volume import Volume, from_source
from tests.cohort.conftest import SPACING, chest

ORIGIN = (-170.0, -150.0, -400.0)
NAMES = {
    1: "right upper lobe",
    2: "right middle lobe",
    3: "right lower lobe",
    4: "left upper lobe",
    5: "left lower lobe",
}
TOTALSEGMENTATOR = {
    1: "lung_upper_lobe_right",
    2: "lung_middle_lobe_right",
    3: "lung_lower_lobe_right",
    4: "lung_upper_lobe_left",
    5: "lung_lower_lobe_left",
}


def lobes_and_volume() -> tuple[NDArray[np.uint8], Volume]:
    """Lobe codes ``[z, y, x]`` of the plain chest, and its scan."""
    hu, lobes = chest(0)
    return lobes, from_source(hu, SPACING, ORIGIN)


def image_of(array: NDArray[np.generic], start: Sequence[int] = (0, 0, 0)) -> sitk.Image:
    """An image on the chest's grid that begins at the voxel ``start`` (z, y, x)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin([o + s * mm for o, s, mm in zip(ORIGIN, start[::-1], SPACING[::-1], strict=True)])
    return image


def save_segments(
    path: Path,
    array: NDArray[np.generic],
    names: Mapping[int, str],
    *,
    start: Sequence[int] = (0, 0, 0),
    more: Mapping[int, Mapping[str, str]] | None = None,
) -> Path:
    """A ``.seg.nrrd`` of one layer as 3D Slicer writes it."""
    image = image_of(array, start)
    for number, (label, name) in enumerate(names.items()):
        fields = {"ID": f"Segment_{number + 1}", "Name": name, "LabelValue": str(label), "Layer": "0"}
        for key, value in {**fields, **(more or {}).get(label, {})}.items():
            image.SetMetaData(f"Segment{number}_{key}", value)
    sitk.WriteImage(image, str(path), True)
    return path


def save_layers(path: Path, layers: Sequence[NDArray[np.uint8]], segments: Sequence[tuple[str, int, int]]) -> Path:
    """A ``.seg.nrrd`` of several layers, written byte by byte: the layers are the fastest axis."""
    z, y, x = layers[0].shape
    dz, dy, dx = SPACING
    lines = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {len(layers)} {x} {y} {z}",
        f"space directions: none ({dx},0,0) (0,{dy},0) (0,0,{dz})",
        "kinds: list domain domain domain",
        "encoding: raw",
        f"space origin: ({ORIGIN[0]},{ORIGIN[1]},{ORIGIN[2]})",
    ]
    for number, (name, layer, label) in enumerate(segments):
        fields = {"ID": f"Segment_{number + 1}", "Name": name, "LabelValue": label, "Layer": layer}
        lines += [f"Segment{number}_{key}:={value}" for key, value in fields.items()]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + np.stack(layers, axis=-1).tobytes())
    return path


def save_folder(folder: Path, lobes: NDArray[np.uint8], names: Mapping[int, str] = TOTALSEGMENTATOR) -> Path:
    """One binary file a lobe, and other organs beside them."""
    folder.mkdir(parents=True)
    for code, name in names.items():
        sitk.WriteImage(image_of((lobes == code).astype(np.uint8)), str(folder / f"{name}.nii.gz"))
    for organ in ("heart", "trachea", "lung_vessels"):
        sitk.WriteImage(image_of((lobes > 9).astype(np.uint8)), str(folder / f"{organ}.nii.gz"))
    return folder


def recoded(lobes: NDArray[np.uint8], values: Mapping[int, int]) -> NDArray[np.int16]:
    """Other values in place of our codes."""
    table = np.zeros(256, dtype=np.int16)
    for code, value in values.items():
        table[code] = value
    return table[lobes]


def order_of(codes: Mapping[int, int]) -> dict[int, int]:
    """A tool's value by our code, of its table."""
    return {ours: value for value, ours in codes.items() if ours <= len(LOBES)}


def lungs(lobes: NDArray[np.uint8], right: int = 1, left: int = 2) -> NDArray[np.uint8]:
    """Both lungs as lungmask's R231 writes them."""
    return np.select([np.isin(lobes, (1, 2, 3)), np.isin(lobes, (4, 5))], [right, left], 0).astype(np.uint8)


def save(array: NDArray[Any], path: Path) -> Path:
    """A label map on the chest's grid."""
    sitk.WriteImage(image_of(array), str(path))
    return path
