"""Lobes end at fissures: against a dense solution, and where a line runs beside the border the network drew."""

from __future__ import annotations

import numpy as np

from m2unet.inference.fissure_walk import WalkConfig, follow_fissures


def test_two_lobes_of_a_row_by_a_dense_solution() -> None:
    """Three voxels of left lung in a row, a fissure on the last."""
    scores = np.zeros((7, 1, 1, 3), np.float16)
    upper = np.array([0.9, 0.6, 0.2])
    scores[4, 0, 0], scores[5, 0, 0] = 0.8 * upper, 0.8 * (1 - upper)
    scores[0] = 0.2
    config = WalkConfig(prior=0.1, barrier=2.0, tolerance=1e-7)
    follow_fissures(scores, np.array([[[0.0, 0.0, 1.0]]]), 3.0, config)
    free, across = 1.0, np.exp(-2.0)
    system = np.array(
        [[free + 0.1, -free, 0], [-free, free + across + 0.1, -across], [0, -across, across + 0.1]]
    )  # fmt: skip
    expected = np.linalg.solve(system, 0.1 * upper)
    np.testing.assert_allclose(scores[4, 0, 0], 0.8 * expected, atol=2e-3)
    np.testing.assert_allclose(scores[4] + scores[5], 0.8, atol=2e-3)
    assert np.all(scores[[1, 2, 3, 6]] == 0)


def test_a_slice_apart_pulls_less() -> None:
    scores = np.zeros((7, 2, 1, 1), np.float16)
    scores[4, :, 0, 0], scores[5, :, 0, 0] = (1, 0), (0, 1)
    follow_fissures(scores, np.zeros((2, 1, 1)), 4.0, WalkConfig(prior=1.0, tolerance=1e-7))
    pull = (2.0 / 4.0) ** 2
    expected = np.linalg.solve([[pull + 1, -pull], [-pull, pull + 1]], [1.0, 0.0])
    np.testing.assert_allclose(scores[4, :, 0, 0], expected, atol=1e-3)


def test_the_border_moves_to_the_line_in_sight() -> None:
    rows = np.arange(40)[:, None] * np.ones((1, 30))
    doubt = 1 / (1 + np.exp((rows - 16) / 4))  # the network's border at row 16, soft
    scores = np.zeros((7, 3, 40, 30), np.float16)
    scores[1], scores[3] = doubt, 1 - doubt
    line = np.zeros((3, 40, 30))
    line[:, 21] = 1.0
    seen, unseen = scores.copy(), scores.copy()
    follow_fissures(seen, line, 3.0)
    follow_fissures(unseen, np.zeros_like(line), 3.0)
    last = [int(np.flatnonzero(each[1, 1, :, 15] > each[3, 1, :, 15])[-1]) for each in (scores, seen, unseen)]
    assert last[0] == 15 and last[1] in (20, 21) and abs(last[2] - 15) <= 3


def test_what_is_no_lung_stays() -> None:
    scores = np.full((7, 2, 4, 4), 1 / 7, np.float16)
    scores[1:6, 0] = 0.001
    before = scores.copy()
    follow_fissures(scores, np.zeros((2, 4, 4)), 3.0)
    assert np.array_equal(scores[:, 0], before[:, 0])
    np.testing.assert_allclose(scores[1:6].sum(0, dtype=np.float32), before[1:6].sum(0, dtype=np.float32), atol=3e-3)
