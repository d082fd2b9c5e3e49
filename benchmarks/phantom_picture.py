"""Contact sheet of phantoms for the documentation.

python benchmarks/phantom_picture.py docs/images/phantom-examples.png
"""

from __future__ import annotations

import sys
from dataclasses import replace

import matplotlib
import numpy as np
from PIL import Image

from m2unet.phantom.cohort import CohortConfig, CohortPlan, ScanPlan, lung_box, plan_cohort
from m2unet.phantom.confounders import Confounders
from m2unet.phantom.disease import DiseaseState
from m2unet.phantom.protocol import SITES, draw_protocol
from m2unet.phantom.scan import PhantomScan, make_scan

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NONE = Confounders()
WELL = DiseaseState((0.0,) * 5, (0.0,) * 5, 0.0)
COLOURS = np.array([[0, 0, 0, 0], [230, 159, 0, 150], [213, 94, 0, 190], [0, 158, 115, 160], [86, 180, 233, 220]]) / 255


def one(plan: CohortPlan, scan: ScanPlan, **changes: object) -> PhantomScan:
    """Render a scan with some of its plan changed, on 320 x 320 voxels."""
    p = scan.protocol
    matrix = 320
    protocol = replace(p, matrix=matrix, pixel_mm=p.fov_mm / matrix)
    scan = replace(scan, **{"protocol": protocol, "confounders": NONE, **changes})
    return make_scan(replace(plan, scans=(scan,)), scan.scan_id)


def show(axis: plt.Axes, made: PhantomScan, share: float, title: str, lesions: bool = False) -> None:
    slices = np.flatnonzero((made.lobes > 0).any(axis=(1, 2)))
    k = int(slices[0] + share * (slices[-1] - slices[0]))
    axis.imshow(made.volume.array[k], cmap="gray", vmin=-1250, vmax=250)
    if lesions:
        axis.imshow(COLOURS[made.lesions[k]], interpolation="nearest")
    axis.set_title(title, fontsize=7, pad=2)


def main() -> None:
    plan = plan_cohort(CohortConfig(size="small", scans=60, patients=40, severe_fraction=0.5), seed=5)
    by_score = sorted(plan.scans, key=lambda scan: scan.state.score)
    figure, axes = plt.subplots(4, 7, figsize=(12.6, 7.6))
    for axis in axes.flat:
        axis.axis("off")
    chosen = [by_score[int(q * (len(by_score) - 1))] for q in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)]
    for column, scan in enumerate(chosen):
        made = one(plan, scan)
        grade = plan.patient_of(scan).grade
        show(axes[0, column], made, 0.33, f"{grade}, score {made.truth.score:.0f}")
        show(axes[1, column], made, 0.33, "its lesions", lesions=True)
    findings = {
        "dependent atelectasis": (Confounders(atelectasis=1.0), 0.3),
        "emphysema": (Confounders(emphysema=0.3), 0.7),
        "nodules": (Confounders(nodules=12), 0.5),
        "apical scars": (Confounders(scars=6), 0.88),
        "breathing motion": (Confounders(motion=1.0), 0.3),
    }
    for column, (name, (strengths, share)) in enumerate(findings.items()):
        scan = plan.scans[3 * column]
        patients = tuple(replace(patient, confounders=strengths) for patient in plan.patients)
        made = one(replace(plan, patients=patients), scan, state=WELL, confounders=strengths)
        show(axes[2, column], made, share, name)
    thick = chosen[4]
    for column, (matrix, name) in enumerate(((160, "small: 160 x 160"), (512, "the same at 512 x 512")), 5):
        protocol = replace(thick.protocol, matrix=matrix, pixel_mm=thick.protocol.fov_mm / matrix)
        show(axes[2, column], one(plan, thick, protocol=protocol), 0.4, name)
    for column in range(7):
        scan = chosen[3]
        protocol = draw_protocol(
            np.random.default_rng(column), column, lung_box(plan.patient_of(scan).anatomy), "small"
        )
        made = one(plan, scan, protocol=replace(protocol, matrix=320, pixel_mm=protocol.fov_mm / 320))
        show(axes[3, column], made, 0.4, f"{SITES[column].name}: {protocol.kernel.name}, {protocol.thickness_mm:g} mm")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.97, 0.02, 0.09)
    figure.savefig(sys.argv[1], dpi=90)
    with Image.open(sys.argv[1]) as picture:  # 96 colours suffice and take half the room
        picture.convert("RGB").quantize(96).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
