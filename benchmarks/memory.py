"""Peak memory and time of ``m2unet predict`` by the number of slices.

    python benchmarks/memory.py SCAN --model runs/demo --slices 100 300 700 --out memory.md

The scan is stretched or squeezed along z to each number of slices, its plane brought to 512 x 512, and predicted by a
process of its own, whose peak resident memory the kernel reports. All else (report, view, masks) is written as usual.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from m2unet.ct.read import read_scan

SIDE = 512


def stretched(scan: Path, slices: int, path: Path) -> None:
    """Write the scan with so many slices of 512 x 512 over the same extent, linearly interpolated."""
    volume = read_scan(scan)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    size = (SIDE, SIDE, slices)
    spacing = [old * step / new for old, step, new in zip(image.GetSize(), image.GetSpacing(), size, strict=True)]
    grid = sitk.Image(size, sitk.sitkInt16)
    grid.SetSpacing(spacing)
    sitk.WriteImage(sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, -1024), str(path))


def predict(scan: Path, model: Path, out: Path) -> tuple[float, dict[str, float]]:
    """Peak resident memory (MiB) of the prediction's process, and the seconds of its stages."""
    call = [sys.executable, "-m", "m2unet", "predict", str(scan), "--model", str(model), "--out", str(out)]
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
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 700])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = ["| slices of 512 x 512 | voxels, MiB as int16 | peak, MiB | CPU, s |", "|---:|---:|---:|---:|"]
    peaks = []
    for slices in options.slices:
        with tempfile.TemporaryDirectory() as folder:
            scan = Path(folder) / f"{slices}.mha"
            stretched(options.scan, slices, scan)
            peak, seconds = predict(scan, options.model, Path(folder) / "out")
        peaks.append(peak)
        volume = slices * SIDE * SIDE * 2 / 2**20
        lines.append(f"| {slices} | {volume:.0f} | {peak:.0f} | {seconds['cpu']:.0f} |")
        print(lines[-1], {name: round(value, 1) for name, value in seconds.items()}, flush=True)
    slope = np.polyfit(np.array(options.slices) * SIDE * SIDE / 2**20, peaks, 1)[0]
    lines.append(f"\nGrowth: {slope:.1f} bytes a voxel; the volume itself is 2, lobes and opacities 1 each.")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
