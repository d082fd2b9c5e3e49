"""Time and memory to render one phantom scan: 512 x 512 x 300 and 160 x 160 x 40.

    python benchmarks/phantom_speed.py

Each size runs in a fresh process, imports not counted; the small scan is timed again when warm. The budget is 30 s and
4 GB for the large one, 1 s for the small one, on two cores.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace


def measure(matrix: int, slices: int, repeats: int) -> dict[str, float]:
    """Render the scan of a severe patient on a given grid, anatomy and lesions included."""
    import scipy.ndimage
    import sklearn
    import torch

    from m2unet.phantom.anatomy import Anatomy
    from m2unet.phantom.cohort import CohortConfig, plan_cohort
    from m2unet.phantom.protocol import SITES
    from m2unet.phantom.scan import make_scan

    plan = plan_cohort(CohortConfig(size="small", scans=20, patients=10, severe_fraction=0.5), seed=3)
    scan = next(scan for scan in plan.scans if plan.patient_of(scan).severe)
    taken = replace(
        scan.protocol,
        site=0,
        matrix=matrix,
        pixel_mm=360.0 / matrix,
        slices=slices,
        step_mm=300.0 / slices,
        thickness_mm=1.0,
    )
    plan = replace(plan, scans=(replace(scan, protocol=taken),))
    assert SITES[0].matrix == 512
    assert torch.__version__ and scipy.ndimage and sklearn  # loaded before the clock starts
    inner = 0.0
    whole = Anatomy.render

    def timed(self: Anatomy, *arguments: object, **options: object) -> object:
        nonlocal inner
        start = time.perf_counter()
        tissues = whole(self, *arguments, **options)
        inner += time.perf_counter() - start
        return tissues

    Anatomy.render = timed
    walls, used = [], []
    for _ in range(repeats):
        inner, start, cpu = 0.0, time.perf_counter(), time.process_time()
        made = make_scan(plan, scan.scan_id)
        walls.append(time.perf_counter() - start)
        used.append(time.process_time() - cpu)
    assert made.volume.shape == (slices, matrix, matrix)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"first_s": walls[0], "best_s": min(walls), "cpu_s": min(used), "anatomy_s": inner, "peak_gib": peak}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
        return
    for matrix, slices, repeats in ((512, 300, 1), (160, 40, 5)):
        command = [sys.executable, __file__, str(matrix), str(slices), str(repeats)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        text = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"{matrix} x {matrix} x {slices}: {text}")


if __name__ == "__main__":
    main()
