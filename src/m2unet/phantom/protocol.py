"""Seven invented sites, and the protocol each scan is taken with.

A protocol is drawn from its site and from the size of the patient's lungs, never from the disease. Ranges follow the
cohort of He et al. 2020: 512-666 voxels of 0.586-0.984 mm in plane, 23-732 slices of 0.399-10 mm, seven hospitals,
five scanner models. The small size shows the same protocols on 160 x 160 voxels and at most 40 slices: it keeps every
k-th slice and the slice thickness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Size = Literal["paper", "small"]

PIXEL_MM = (0.586, 0.984)
STEP_MM = (0.399, 10.0)
SLICES = (23, 732)
SMALL_MATRIX = 160
SMALL_SLICES = 40


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel.

    Attributes:
        name: soft, medium, lung or sharp.
        blur_mm: standard deviation of its Gaussian.
        edge: strength of its edge enhancement, 0 none.
        noise: factor on the noise.
    """

    name: str
    blur_mm: float
    edge: float
    noise: float


SOFT = Kernel("soft", 0.85, 0.0, 0.6)
MEDIUM = Kernel("medium", 0.60, 0.0, 1.0)
LUNG = Kernel("lung", 0.45, 0.7, 1.6)
SHARP = Kernel("sharp", 0.35, 1.3, 2.2)


@dataclass(frozen=True)
class Site:
    """One hospital.

    Attributes:
        name: as the manifest's ``site`` column has it.
        scanner: one of five invented models.
        weight: share of the patients.
        kernels: in use here, equally often.
        slices: (thickness, step) in mm, equally often.
        matrix: rows and columns at paper size.
        fov_mm: range of the field of view; grown where the lungs are wider.
        noise_hu: range of the noise of a 1 mm slice with the medium kernel, the inverse of dose.
        coverage: range of the share of the way from lungs alone (0) to neck-to-abdomen (1).
        circular: whether voxels outside the circular field of view hold the padding value.
        padding: that value.
        flips: stored axes ``(z, y, x)`` that run against LPS.
        table: shape of the couch.
    """

    name: str
    scanner: str
    weight: float
    kernels: tuple[Kernel, ...]
    slices: tuple[tuple[float, float], ...]
    matrix: int
    fov_mm: tuple[float, float]
    noise_hu: tuple[float, float]
    coverage: tuple[float, float]
    circular: bool
    padding: int
    flips: tuple[bool, bool, bool]
    table: Literal["curved", "flat"]


# fmt: off
SITES: tuple[Site, ...] = (
    Site("site-1", "model-A", 0.22, (LUNG, MEDIUM), ((1.0, 1.0), (1.5, 1.0), (5.0, 5.0)), 512, (330, 420), (14, 24),
         (0.1, 0.6), True, -2000, (False, False, False), "curved"),
    Site("site-2", "model-B", 0.19, (SOFT, SHARP), ((0.625, 0.625), (1.25, 1.25), (1.25, 0.8)), 512, (340, 460),
         (12, 22), (0.0, 0.5), True, -3024, (False, True, False), "curved"),
    Site("site-3", "model-C", 0.16, (MEDIUM,), ((2.0, 2.0), (3.0, 3.0), (5.0, 5.0)), 512, (320, 400), (16, 28),
         (0.2, 1.0), False, -1024, (False, False, True), "flat"),
    Site("site-4", "model-A", 0.13, (LUNG, SOFT), ((1.0, 1.0), (5.0, 5.0), (8.0, 8.0)), 512, (350, 480), (18, 34),
         (0.0, 0.4), True, -1024, (True, False, False), "curved"),
    Site("site-5", "model-D", 0.12, (SHARP, MEDIUM), ((0.6, 0.399), (1.0, 0.7), (2.0, 1.5)), 666, (390, 450), (12, 20),
         (0.1, 0.8), True, -2048, (False, True, True), "flat"),
    Site("site-6", "model-E", 0.10, (SOFT, MEDIUM), ((5.0, 5.0), (7.0, 7.0), (10.0, 10.0)), 512, (340, 500), (20, 40),
         (0.2, 1.0), False, -1024, (True, True, False), "curved"),
    Site("site-7", "model-B", 0.08, (LUNG,), ((1.25, 1.25), (2.5, 2.5), (3.75, 3.75)), 512, (300, 360), (14, 30),
         (0.0, 0.3), True, -3024, (True, False, True), "flat"),
)
# fmt: on


@dataclass(frozen=True)
class Protocol:
    """How one scan is taken; patient coordinates in mm, see :class:`m2unet.phantom.grid.Grid`.

    Attributes:
        site: index into :data:`SITES`.
        kernel: reconstruction kernel.
        matrix: rows and columns.
        pixel_mm: in-plane voxel size.
        slices: number of slices.
        step_mm: distance between slices.
        thickness_mm: slice thickness.
        low_mm: z of the lowest slice.
        centre_mm: ``(y, x)`` of the middle of the field of view.
        noise_hu: standard deviation of the noise in the finished image, in a slice of average attenuation.
        table_gap_mm: air and mattress between back and couch.
        isocentre_mm: LPS position ``(x, y, z)`` of the patient's origin in the scanner.
    """

    site: int
    kernel: Kernel
    matrix: int
    pixel_mm: float
    slices: int
    step_mm: float
    thickness_mm: float
    low_mm: float
    centre_mm: tuple[float, float]
    noise_hu: float
    table_gap_mm: float
    isocentre_mm: tuple[float, float, float]

    @property
    def fov_mm(self) -> float:
        """Diameter of the field of view."""
        return self.matrix * self.pixel_mm


@dataclass(frozen=True)
class LungBox:
    """The box of a patient's lungs, ``(low, high)`` in mm along each axis."""

    z: tuple[float, float]
    y: tuple[float, float]
    x: tuple[float, float]


def draw_protocol(rng: np.random.Generator, site: int, lungs: LungBox, size: Size) -> Protocol:
    """Draw a scan's protocol; the same number of deviates is drawn for both sizes.

    Args:
        rng: source of randomness.
        site: index into :data:`SITES`.
        lungs: box of the patient's lungs; the scan always covers them.
        size: ``paper`` or ``small``.
    """
    place = SITES[site]
    u = rng.random(11)
    kernel = place.kernels[int(u[0] * len(place.kernels))]
    thickness, step = place.slices[int(u[1] * len(place.slices))]
    centre = (0.5 * sum(lungs.y) + 12 * (u[2] - 0.5), 0.5 * sum(lungs.x) + 16 * (u[3] - 0.5))
    reach = 2 * max(centre[1] - lungs.x[0], lungs.x[1] - centre[1], centre[0] - lungs.y[0], lungs.y[1] - centre[0]) + 14
    fov = max(_between(place.fov_mm, u[4]), reach)
    pixel = float(np.clip(fov / place.matrix, *PIXEL_MM))
    matrix = place.matrix
    coverage = _between(place.coverage, u[5])
    low = lungs.z[0] - (6 + coverage * 110 * (0.5 + 0.5 * u[6]))
    high = lungs.z[1] + (6 + coverage * 80 * (0.5 + 0.5 * u[7]))
    if (high - low) / step > SLICES[1] - 1:  # the thinnest slices reach no farther than the lungs, if so far
        low, high = lungs.z[0] - 3, lungs.z[1] + 3
        enough = [other for other in place.slices if (high - low) / other[1] <= SLICES[1] - 1]
        thickness, step = (thickness, step) if (thickness, step) in enough else enough[0]
    slices = max(int(np.ceil((high - low) / step)) + 1, SLICES[0])
    if size == "small":
        matrix, pixel = SMALL_MATRIX, pixel * place.matrix / SMALL_MATRIX
        if slices > SMALL_SLICES:
            step *= int(np.ceil((slices - 1) / (SMALL_SLICES - 1)))
            slices = int(np.ceil((high - low) / step)) + 1
    noise = _between(place.noise_hu, u[8]) * kernel.noise / np.sqrt(thickness)
    if size == "small":
        noise *= 0.5  # a coarse voxel averages over several fine ones
    return Protocol(
        site=site,
        kernel=kernel,
        matrix=matrix,
        pixel_mm=pixel,
        slices=slices,
        step_mm=float(step),
        thickness_mm=float(thickness),
        low_mm=float(0.5 * (low + high) - 0.5 * (slices - 1) * step),
        centre_mm=centre,
        noise_hu=float(np.clip(noise, 4.0, 70.0)),
        table_gap_mm=float(4 + 14 * u[9]),
        isocentre_mm=(0.0, float(-20 * u[9]), float(-900 - 800 * u[10])),
    )


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(share)
