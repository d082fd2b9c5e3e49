"""Unusual scans: Mahalanobis distance on signatures, against scikit-learn and SciPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from m2unet.config import ConfidenceConfig
from m2unet.errors import M2UNetError, ModelError
from m2unet.inference.confidence import Confidence, read_confidence
from m2unet.inference.outlier import Gaussian, Reference, fit_reference, prediction_limit
from m2unet.inference.severity import SeverityEstimate


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    mixing = np.random.default_rng(1).normal(size=(6, 6))
    return (np.random.default_rng(0).normal(size=(60, 6)) @ mixing * [1, 3, 0.8, 1, 1, 1]).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def test_distances_are_scikit_learns(cloud: np.ndarray) -> None:
    scaled = (cloud.astype(float) - cloud.astype(float).mean(axis=0)) / cloud.astype(float).std(axis=0)
    theirs = LedoitWolf(assume_centered=True).fit(scaled)
    query = np.random.default_rng(2).normal(size=(4, 6))
    moved = query * cloud.astype(float).std(axis=0) + cloud.astype(float).mean(axis=0)
    assert Gaussian.fit(cloud).distance(moved) == pytest.approx(np.sqrt(theirs.mahalanobis(query) / 6), rel=1e-6)


def test_more_dimensions_than_scans() -> None:
    """The form by singular vectors against the inverse of the whole matrix."""
    rows = np.random.default_rng(3).normal(size=(15, 40))
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    theirs = LedoitWolf(assume_centered=True).fit(scaled)
    query = np.random.default_rng(4).normal(size=(3, 40))
    moved = query * rows.std(axis=0) + rows.mean(axis=0)
    assert Gaussian.fit(rows).distance(moved) == pytest.approx(np.sqrt(theirs.mahalanobis(query) / 40), rel=1e-6)


def test_the_limit_is_the_prediction_limit_of_validation_scans(cloud: np.ndarray) -> None:
    fresh = cloud[40:] + np.random.default_rng(5).normal(size=(20, 6)).astype(np.float32) * 0.1
    found = fit_reference(cloud[:40], names(40), fresh, quantile=0.95)
    assert found is not None
    logs = np.log(Gaussian.fit(cloud[:40]).distance(fresh))
    expected = logs.mean() + stats.t.ppf(0.95, 19) * logs.std(ddof=1) * np.sqrt(1 + 1 / 20)
    largest = Gaussian.fit(cloud[:40]).distance(fresh).max()  # its rank is 21 * 0.95
    assert found.limit == pytest.approx(max(np.exp(expected), largest)) and len(found.usual) == 20
    assert found.share_farther(found.limit) <= 0.1


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "several scanners"])
def test_training_scans_set_a_limit_that_keeps_its_rate(kind: str) -> None:
    """Student's limit of the logarithm alone lets too many pass it where tails are heavy."""
    rng, rates = np.random.default_rng(0), []

    def scans(count: int) -> np.ndarray:
        rows = rng.normal(size=(count, 12))
        if kind == "heavy tails":
            rows /= np.sqrt(rng.chisquare(3, (count, 1)) / 3)
        if kind == "several scanners":
            centres = np.random.default_rng(5).normal(size=(7, 12)) * 3
            rows += centres[rng.choice(7, count, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.04, 0.03])]
        return rows

    for _ in range(25):
        found = fit_reference(scans(60), names(60), np.zeros((0, 12)), quantile=0.975)
        assert found is not None
        rates.append(np.mean([found.distance(row) > found.limit for row in scans(150)]))
    assert np.mean(rates) <= 0.025


def test_a_limit_that_nothing_passes_is_refused() -> None:
    with pytest.raises(M2UNetError, match="below 1"):
        prediction_limit(np.array([1.0, 2.0]), 1.0)
    with pytest.raises(ValidationError):
        ConfidenceConfig(usual_quantile=1)


def test_false_alarms_come_at_the_stated_rate() -> None:
    rng = np.random.default_rng(6)
    rates = []
    for _ in range(40):
        rows = rng.normal(size=(150, 8))
        found = fit_reference(rows[:80], names(80), rows[80:110], quantile=0.9)
        assert found is not None
        rates.append(np.mean([found.distance(row) > found.limit for row in rows[110:]]))
    assert 0.06 < np.mean(rates) < 0.14


def test_few_validation_scans_leave_it_to_training_scans_of_other_patients(cloud: np.ndarray) -> None:
    twice = np.repeat(cloud[:30], 4, axis=0)
    apart = fit_reference(twice, names(120), np.zeros((0, 6)))
    together = fit_reference(twice, [f"p{i // 4}" for i in range(120)], np.zeros((0, 6)))
    assert apart is not None and together is not None and len(together.usual) == 120
    # what is fitted without a patient describes that patient worse
    assert np.mean(together.usual) > np.mean(apart.usual)
    alone = Gaussian.fit(np.delete(cloud[:30], 0, axis=0)).distance(cloud[:1])[0]
    single = fit_reference(cloud[:30], ["first", *["other"] * 29], np.zeros((0, 6)))
    assert single is not None and min(abs(np.array(single.usual) - alone)) < 1e-5


def test_unusual_in_a_direction_in_which_nothing_varies() -> None:
    """Values that training scans have, together as no training scan has them."""
    rng = np.random.default_rng(7)
    base = rng.normal(size=(80, 1))
    rows = np.hstack([base, base + 0.01 * rng.normal(size=(80, 1)), rng.normal(size=(80, 2))])
    found = fit_reference(rows[:60], names(60), rows[60:])
    assert found is not None
    assert found.distance([2.2, 2.2, 0, 0]) < found.limit < found.distance([2.2, -2.2, 0, 0])


def test_too_few_scans_or_patients_give_no_reference(cloud: np.ndarray) -> None:
    assert fit_reference(cloud[:11], names(11), cloud[:2]) is None
    assert fit_reference(cloud, ["one"] * 60, np.zeros((0, 6))) is None
    flat = fit_reference(np.zeros((20, 3)), names(20), np.zeros((0, 3)))
    assert flat is not None and flat.distance([0, 0, 0]) == 0 and np.isfinite(flat.distance([1, 0, 0]))


def test_a_file_of_the_first_version_is_read_and_means_what_it_meant(cloud: np.ndarray, tmp_path: Path) -> None:
    import hashlib

    import safetensors.numpy

    content = safetensors.numpy.save({"embeddings": cloud})
    (tmp_path / "reference.safetensors").write_bytes(content)
    entry = Confidence().to_card()
    about = {"scans": 60, "limit": 1.5, "usual": [0.5, 1.0], "sha256": hashlib.sha256(content).hexdigest()}
    entry["reference"] = about
    found = read_confidence(tmp_path, {"confidence": entry}).reference
    assert found is not None and found.version == 1 and found.limit == 1.5
    query, scale = np.random.default_rng(8).normal(size=6), cloud.std(axis=0)
    nearest, _ = NearestNeighbors(n_neighbors=5).fit(cloud / scale).kneighbors([query / scale])
    assert found.distance(query) == pytest.approx(nearest.mean() / np.sqrt(6), rel=1e-5)
    both = SeverityEstimate(0.5, 0.0, (0.5,), 0, embedding=(1.0,) * 6, signature=(2.0,) * 4)
    assert found.vector(both) == both.embedding and Reference(cloud, 1.0, ()).vector(both) == both.signature
    about["version"] = 3
    with pytest.raises(ModelError, match="version that is not known"):
        read_confidence(tmp_path, {"confidence": entry})


def test_more_channels_than_scans_do_not_raise_false_alarms() -> None:
    """With few parts each Gaussian saw a tenth fewer scans than the final one, from which all scans lie farther."""
    rng, rates = np.random.default_rng(12), []
    for _ in range(4):
        mixing = rng.normal(size=(6, 300)) * np.linspace(2, 0.3, 6)[:, None]
        rows = rng.normal(size=(300, 6)) @ mixing + 0.5 * rng.normal(size=(300, 300))
        found = fit_reference(rows[:150], names(150), np.zeros((0, 300)))
        assert found is not None
        rates.append(np.mean([found.distance(row) > found.limit for row in rows[150:]]))
    assert np.mean(rates) < 0.035
