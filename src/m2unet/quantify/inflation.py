"""How deeply a scan was breathed in, told from the aerated lung, and opacity as it would be at another depth.

Breath changes the share of the lung that is opaque without any change of disease: aerated lung gives air away, dense
lung hardly does. Two limiting cases bound the truth. Either opacity and aerated lung shrink alike; the percentage then
needs no correction. Or opacity keeps its volume and only the aerated lung changes; by the sponge model (the mass of the
aerated lung stays, so its volume goes as the inverse of its density: Staring et al. 2014, *Medical Physics* 41:021905)
the aerated volume of a scan, times its density over that of another, is the volume at the other's depth of breath.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2unet.anatomy import LOBE_CODES

_LOWEST_HU, _HIGHEST_HU, _BIN = -1000, -500, 5
_SMOOTH = 3.0  # bins
_FEWEST = 200


def aerated_hu(array: NDArray[np.int16], mask: NDArray[Any], opacity: NDArray[Any]) -> float | None:
    """Peak of the histogram of the lung that is not opaque: its typical HU, whatever vessels and rims do.

    Args:
        array: ``[z, y, x]`` HU.
        mask: ``[z, y, x]`` lobe codes.
        opacity: ``[z, y, x]`` 0 where nothing is opaque.

    Returns:
        HU to a tenth of a bin of 5 HU, or None where fewer than 200 voxels are aerated.
    """
    from scipy.ndimage import gaussian_filter1d

    hu = array[np.isin(mask, LOBE_CODES) & (opacity == 0)]
    counts, edges = np.histogram(hu, bins=np.arange(_LOWEST_HU, _HIGHEST_HU + 1, _BIN))
    if counts.sum() < _FEWEST:
        return None
    smooth = gaussian_filter1d(counts.astype(np.float64), _SMOOTH, mode="constant")
    top = int(smooth.argmax())
    middle = float(edges[top]) + _BIN / 2
    if 0 < top < len(smooth) - 1:  # a parabola through the peak
        left, here, right = smooth[top - 1 : top + 2]
        bend = left - 2 * here + right
        middle += _BIN * float(0.5 * (left - right) / bend) if bend < 0 else 0.0
    return middle


def density_ratio(hu: float, reference_hu: float) -> float:
    """Density of aerated lung over that of the reference scan; above 1 the scan was breathed in less deeply.

    Args:
        hu, reference_hu: of :func:`aerated_hu`; -1000 HU is air without mass.
    """
    return max(hu + 1000.0, 1.0) / max(reference_hu + 1000.0, 1.0)


def at_reference_breath(opacity_ml: float, volume_ml: float, ratio: float) -> float:
    """Percent opaque at the reference's depth of breath if opacity keeps its volume.

    Args:
        opacity_ml: opaque volume.
        volume_ml: volume with it, above 0.
        ratio: of :func:`density_ratio`.
    """
    aerated = max(volume_ml - opacity_ml, 0.0) * ratio
    whole = opacity_ml + aerated
    return 100.0 * opacity_ml / whole if whole > 0 else 0.0
