"""Doubt of a proposal: entropy against SciPy, borders by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy as reference

from m2unet.anatomy import UNDECIDED
from m2unet.cohort.manifest import Manifest
from m2unet.ct.read import read_scan
from m2unet.inference.predictor import Predictor
from m2unet.inference.uncertainty import BORDER_MM, entropy, near_borders, propose_lobes
from m2unet.workflows.run_folder import RunFolder


def test_entropy_is_shannons_as_a_share_of_the_greatest() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(6), 50).T.astype(np.float32)
    np.testing.assert_allclose(entropy(scores), reference(scores, base=6, axis=0), rtol=1e-5)
    assert entropy(np.eye(6, dtype=np.float32)).max() == pytest.approx(0, abs=1e-5)
    assert entropy(np.full((6, 1), 1 / 6, np.float32))[0] == pytest.approx(1)


def test_near_a_border_is_a_distance_in_the_plane() -> None:
    codes = np.zeros((2, 1, 40), dtype=np.uint8)
    codes[0, 0, 10:20], codes[0, 0, 20:30] = 3, 1
    near = near_borders(codes, (9.0, 2.0, 2.0))
    steps = int(BORDER_MM / 2.0)
    wanted = np.zeros(40, dtype=bool)
    for edge in (10, 20, 30):  # voxels edge - 1 and edge touch the border
        wanted[edge - 1 - steps : edge + steps + 1] = True
    np.testing.assert_array_equal(near[0, 0], wanted)
    assert not near[1].any(), "a slice without lobes is near nothing"


def test_a_proposal_marks_what_it_is_not_sure_of(run: RunFolder, cohort: Manifest) -> None:
    predictor = Predictor.load(run.path)
    volume = read_scan(cohort.rows[0].image)
    found = propose_lobes(predictor, volume, confident_from=0.5)
    np.testing.assert_array_equal(found.lobes, predictor.predict(volume, severity=False).lobes)
    assert 0 < found.doubt <= 1
    never = propose_lobes(predictor, volume, confident_from=1.01)
    assert never.sure_share in (0.0, None)
    assert set(np.unique(never.confident)) <= {0, UNDECIDED}
    always = propose_lobes(predictor, volume, confident_from=0.0)
    assert not (always.confident == UNDECIDED).any()
    assert always.doubt == found.doubt
