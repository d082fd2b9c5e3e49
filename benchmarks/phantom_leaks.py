"""What tells severity in phantom cohorts of 200 small scans: protocols (no), mean HU (a little), true extents (yes).

python -m benchmarks.phantom_leaks [--seeds 3] [--planned-only]
"""

from __future__ import annotations

import argparse

import numpy as np
from tests.phantom.test_leaks import PAPER, crossvalidated, picture_figures, planned_extents, protocol_features

from m2unet.phantom.cohort import CohortConfig, plan_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--planned-only", action="store_true", help="render nothing")
    options = parser.parse_args()
    print("severe  seed  protocol  planned extents  mean HU of box  mean HU of body  true extents")
    for share in (PAPER, 0.4):
        rows = []
        for seed in range(options.seeds):
            plan = plan_cohort(CohortConfig(size="small", scans=200, severe_fraction=share), seed)
            row = [crossvalidated(protocol_features(plan), plan), crossvalidated(planned_extents(plan), plan)]
            row += [] if options.planned_only else picture_figures(plan).values()
            rows.append(row)
            print(f"{share:6.2f} {seed:5d}  " + "  ".join(f"{value:.3f}" for value in row), flush=True)
        print(f"{share:6.2f}  mean  " + "  ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)))
        print(
            f"{share:6.2f} range  "
            + "  ".join(f"{a:.3f}-{b:.3f}" for a, b in zip(*np.percentile(rows, [0, 100], axis=0), strict=True))
        )


if __name__ == "__main__":
    main()
