"""Set the phantoms' lobe geometry beside that of real lobe maps.

    python benchmarks/phantom_fit.py --maps DIR --phantoms 51 --out fit.md

DIR holds NIfTI maps with codes 1-5 (RUL RML RLL LUL LLL) and 6 (airway). Only means and spreads are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from m2unet.phantom.anatomy import Anatomy, Grid, draw_anatomy
from m2unet.phantom.measure import measure_lobes

SPACING_MM = (5.0, 2.75, 2.75)


def real_measures(folder: Path) -> list[dict[str, float]]:
    """Measures of every map in a folder."""
    import SimpleITK as sitk

    found = []
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
        z, y, x = image.GetSpacing()[::-1]
        found.append(measure_lobes(sitk.GetArrayFromImage(image), (z, y, x)))
    return found


def phantom_measures(count: int, seed: int) -> list[dict[str, float]]:
    """Measures of drawn phantoms at the maps' resolution."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        anatomy = Anatomy(draw_anatomy(rng))
        low, high = anatomy.lung_extent_mm
        lower = (low[0] - 10, low[1] - 10, low[2] - 10)
        upper = (high[0] + 10, high[1] + 10, high[2] + 10)
        tissues = anatomy.render(Grid.around(lower, upper, SPACING_MM), vessels=False)
        found.append(measure_lobes(tissues.lobes, SPACING_MM))
    return found


def table(phantom: list[dict[str, float]], real: list[dict[str, float]]) -> str:
    """A Markdown table, one measure a line: mean and standard deviation of both."""
    lines = [f"| measure | phantom (n = {len(phantom)}) | real (n = {len(real)}) |", "|---|---|---|"]
    for name in real[0]:
        cells = []
        for rows in (phantom, real):
            values = np.array([row[name] for row in rows])
            digits = 0 if name.endswith("_ml") or name.endswith("_mm") and "rough" not in name else 1
            digits = digits if np.nanmean(np.abs(values)) > 3 else 3
            cells.append(f"{np.nanmean(values):.{digits}f} ± {np.nanstd(values):.{digits}f}")
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="folder of real lobe maps (NIfTI)")
    parser.add_argument("--phantoms", type=int, default=51)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, help="file to write the table to; printed in any case")
    chosen = parser.parse_args()
    text = table(phantom_measures(chosen.phantoms, chosen.seed), real_measures(chosen.maps))
    print(text)
    if chosen.out:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
