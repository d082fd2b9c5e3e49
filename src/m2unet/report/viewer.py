"""``viewer.html``: the scan with lobes and opacities as layers, in a browser, from a folder, without a network.

Three files: the page, its data beside it, and NiiVue (BSD-2-Clause) once for all cases of an output folder. A page
opened from a disk may not read other files but scripts, so the images travel as base64 inside one.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBES, RIGHT_CODES
from m2unet.ct.volume import Volume
from m2unet.files import atomic_path, write_text
from m2unet.report.contours import LUNG_WINDOW, OPACITIES
from m2unet.report.html import environment
from m2unet.report.montage import Scene
from m2unet.report.result import ResultDocument

VIEWER_FILE = "viewer.html"
DATA_FILE = "viewer_data.js"
ASSETS = ("niivue.umd.js", "niivue.LICENSE.txt")

MOST_VOXELS = 8_000_000
"""Larger scans are shown coarser, so that a page stays near ten megabytes."""

THICK = 2.5
"""Slices thicker than this many pixels begin without outlines: NiiVue draws them through the slices too."""

HU_STEP, HU_LOWEST = 8, -1024
"""The CT is shown in 256 steps from -1024 HU on: enough for lung and mediastinum, a quarter of the size."""

_LABELS = 1002
"""NIfTI-1's intent code of label images; NiiVue outlines only those."""


@dataclass(frozen=True)
class Layer:
    """One image of the view, on the grid of the CT or another.

    Attributes:
        id: ``ct``, ``lobes``, ``opacity`` or ``heat``.
        title: for the reader.
        kind: how it is coloured: ``grey``, ``labels`` or ``heat``.
        nifti: gzipped NIfTI-1.
        labels: code, name and colour of each label.
        opacity: at first, 0 to 1.
        shown: whether it is switched on at first.
    """

    id: str
    title: str
    kind: str
    nifti: bytes
    labels: tuple[tuple[int, str, tuple[int, int, int]], ...] = ()
    opacity: float = 1.0
    shown: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the image as base64."""
        return {
            "id": self.id,
            "title": self.title,
            "kind": self.kind,
            "opacity": self.opacity,
            "labels": [{"code": code, "name": name, "colour": list(colour)} for code, name, colour in self.labels],
            "nifti": base64.b64encode(self.nifti).decode("ascii"),
        }


@dataclass(frozen=True)
class View:
    """What is shown of one scan.

    Attributes:
        layers: the CT first; further ones, such as a heat map, may be added.
        focus: where the crosshair is at first: shares of the CT from the patient's left, back and feet, 0 to 1.
        coarser_mm: ``(x, y, z)`` of the voxels shown, if they are not the scan's own.
    """

    layers: tuple[Layer, ...]
    focus: tuple[float, float, float] = (0.5, 0.5, 0.5)
    coarser_mm: tuple[float, float, float] | None = None


def write_viewer(folder: Path, document: ResultDocument, view: View, assets: str = "../assets") -> None:
    """Write the page and its data, each atomically.

    Args:
        folder: of the case.
        document: what was found.
        view: of :func:`make_view`, perhaps with more layers.
        assets: where NiiVue is, relative to the folder.
    """
    layers = view.layers
    coarser = " × ".join(f"{step:.2f}" for step in view.coarser_mm or ())
    data = json.dumps({"focus": view.focus, "layers": [layer.to_dict() for layer in layers]}, ensure_ascii=True)
    write_text(folder / DATA_FILE, f"window.m2unetView = {data};\n")
    z, *plane = view.coarser_mm[::-1] if view.coarser_mm else document.scan.spacing_mm
    page = (
        environment()
        .get_template("viewer.html.j2")
        .render(
            document=document,
            layers=layers,
            assets=assets,
            data=DATA_FILE,
            window=list(LUNG_WINDOW),
            coarser=coarser,
            outlines=z <= THICK * min(plane),
        )
    )
    write_text(folder / VIEWER_FILE, page)


def install_assets(folder: Path) -> None:
    """Put NiiVue and its licences into a folder that many cases share, unless they are there."""
    for name in ASSETS:
        content = resources.files("m2unet.report").joinpath("assets", name).read_bytes()
        target = folder / name
        if target.is_file() and _digest(target.read_bytes()) == _digest(content):
            continue
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def make_view(volume: Volume, scene: Scene) -> View:
    """CT, lobes, opacities and heat, cut to the lungs with a margin and made coarser if need be.

    Args:
        volume: whose geometry the layers take.
        scene: the arrays on its grid.
    """
    box = scene.box()
    factors = shrink_factors([side.stop - side.start for side in box], volume.spacing_mm)
    grid = _Grid.of(volume, box, factors)
    steps = _to_steps(shrink_image(scene.array[box], factors), HU_LOWEST, HU_STEP, 255)
    layers = [Layer("ct", "CT", "grey", grid.nifti(steps, HU_STEP, HU_LOWEST))]
    if scene.lobes is not None:
        labels = tuple((lobe.code, f"{lobe.abbreviation}, {lobe.name}", lobe.colour) for lobe in LOBES)
        mask = shrink_mask(scene.lobes[box], factors, [lobe.code for lobe in LOBES])
        layers.append(Layer("lobes", "Lobes", "labels", grid.nifti(mask, intent=_LABELS), labels, 0.22))
    if scene.opacity is not None:
        mask = shrink_mask(scene.opacity[box], factors, [code for code, _, _ in OPACITIES])
        layers.append(Layer("opacity", "Opacities", "labels", grid.nifti(mask, intent=_LABELS), OPACITIES, 0.45))
    if scene.heat is not None:
        heat = _to_steps(shrink_image(scene.heat[box], factors), 0, 1, 100)
        layers.append(Layer("heat", "Evidence for severe", "heat", grid.nifti(heat), (), 0.6, shown=False))
    return View(tuple(layers), _focus(scene, box), None if factors == (1, 1, 1) else grid.spacing_mm)


def _to_steps(values: NDArray[np.float32], lowest: int, step: int, most: int) -> NDArray[np.uint8]:
    """Whole steps above the lowest value, 0 to ``most``; ``values`` is used up."""
    values -= lowest
    values /= step
    np.rint(values, out=values)
    return np.clip(values, 0, most, out=values).astype(np.uint8)


def _focus(scene: Scene, box: tuple[slice, slice, slice]) -> tuple[float, float, float]:
    """The middle of the slice with most opacity, or of the right lung; the middle of the box without lobes."""
    for mask, codes in ((scene.opacity, [code for code, _, _ in OPACITIES]), (scene.lobes, RIGHT_CODES)):
        if mask is None:
            continue
        wanted = np.zeros(256, dtype=np.bool_)
        wanted[list(codes)] = True
        part = mask[box]
        z = int(np.argmax([np.count_nonzero(wanted[plane]) for plane in part]))
        rows, columns = np.nonzero(wanted[part[z]])
        if rows.size:
            middle = np.argmin((rows - np.median(rows)) ** 2 + (columns - np.median(columns)) ** 2)
            deep, high, wide = part.shape
            return 1 - (int(columns[middle]) + 0.5) / wide, 1 - (int(rows[middle]) + 0.5) / high, (z + 0.5) / deep
    return 0.5, 0.5, 0.5


def shrink_factors(shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Whole factors that bring an array to at most :data:`MOST_VOXELS`, the finest axes first."""
    factors = [1, 1, 1]
    while np.prod([size / factor for size, factor in zip(shape, factors, strict=True)]) > MOST_VOXELS:
        coarse = [step * factor for step, factor in zip(spacing_mm, factors, strict=True)]
        fine = min(coarse)
        for axis in range(3):  # axes of like spacing together, so that a plane stays square
            if coarse[axis] < 1.2 * fine:
                factors[axis] += 1
    return factors[0], factors[1], factors[2]


def shrink_image(array: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Means of whole blocks; what is left over at the far ends is dropped."""
    out = np.empty([size // factor for size, factor in zip(array.shape, factors, strict=True)], dtype=np.float32)
    for k in range(len(out)):
        out[k] = _block_sums(array, k, factors)
    out /= np.float32(np.prod(factors))
    return out


def _block_sums(array: NDArray[Any], layer: int, factors: tuple[int, int, int]) -> NDArray[np.int32]:
    """Sums over the blocks of one layer of blocks; strided sums are several times faster than those of a reshape."""
    z, y, x = factors
    high, wide = array.shape[1] // y * y, array.shape[2] // x * x
    plane = array[layer * z : (layer + 1) * z, :high, :wide].sum(axis=0, dtype=np.int32)
    rows: NDArray[np.int32] = np.asarray(sum(plane[k::y] for k in range(y)))
    return np.asarray(sum(rows[:, k::x] for k in range(x)))


def shrink_mask(mask: NDArray[np.uint8], factors: tuple[int, int, int], codes: Sequence[int]) -> NDArray[np.uint8]:
    """The code that most voxels of a block have, of equal ones the first; 0 counts as a code."""
    if factors == (1, 1, 1):
        return np.where(np.isin(mask, codes), mask, 0).astype(np.uint8)
    out = np.zeros([size // factor for size, factor in zip(mask.shape, factors, strict=True)], dtype=np.uint8)
    for k in range(len(out)):
        held = mask[k * factors[0] : (k + 1) * factors[0]]
        present = [code for code in codes if (held == code).any()]
        counts = [_block_sums(held == code, 0, factors) for code in present]
        if present:
            nothing = int(np.prod(factors)) - np.sum(counts, axis=0)
            out[k] = np.array([0, *present], dtype=np.uint8)[np.argmax([nothing, *counts], axis=0)]
    return out


@dataclass(frozen=True)
class _Grid:
    """Where the shown voxels lie: ITK's geometry, (x, y, z)."""

    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, volume: Volume, box: tuple[slice, ...], factors: tuple[int, ...]) -> _Grid:
        first = [side.start + (factor - 1) / 2 for side, factor in zip(box, factors, strict=True)]
        origin = volume.affine @ np.array([*first[::-1], 1.0])
        z, y, x = (step * factor for step, factor in zip(volume.spacing_mm, factors, strict=True))
        square = np.allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-4)
        direction = volume.direction if square else np.eye(3)  # NIfTI's writer takes no tilted gantry
        return cls((x, y, z), tuple(origin[:3].tolist()), tuple(direction.ravel().tolist()))

    def nifti(self, array: NDArray[np.uint8], slope: float = 1.0, intercept: float = 0.0, *, intent: int = 0) -> bytes:
        """Gzipped NIfTI-1; the same bytes for the same array."""
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "image.nii"
            sitk.WriteImage(image, str(path))
            data = bytearray(path.read_bytes())
        data[68:70] = struct.pack("<h", intent)  # intent_code of NIfTI-1
        data[112:120] = struct.pack("<ff", slope, intercept)  # scl_slope and scl_inter of NIfTI-1
        return gzip.compress(bytes(data), 6, mtime=0)
