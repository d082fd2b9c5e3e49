"""Checks never raise, and say what reading would say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from m2unet.ct import checks
from m2unet.ct.checks import check_scan
from m2unet.errors import MissingExtraError
from tests.ct.samples import chest


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    image = sitk.GetImageFromArray(chest())
    image.SetSpacing((4.0, 4.0, 10.0))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    return tmp_path / "a.nii.gz"


def test_a_good_scan(scan: Path) -> None:
    done = check_scan(scan)
    assert done.ok and done.findings == ()
    assert (done.format, done.shape) == ("nifti", (20, 96, 112))
    expected = np.count_nonzero(chest(noise=0) == -850) * 160 / 1000
    assert done.lungs_ml == pytest.approx(expected, rel=0.05)
    said = json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert said["ok"] is True and said["spacing_mm"] == [10.0, 4.0, 4.0] and said["findings"] == []


def test_errors_come_first(scan: Path) -> None:
    image = sitk.ReadImage(str(scan))[:, :, 5:9] + 1024
    sitk.WriteImage(image, str(scan))
    done = check_scan(scan)
    assert not done.ok
    assert [f.level for f in done.findings] == ["error", "warning"]
    assert done.lungs_ml is None and done.shape == (4, 96, 112)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    done = check_scan(tmp_path / "nothing")
    assert not done.ok and done.to_dict()["shape"] is None
    assert done.findings[0].code == "not-found"


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "too-large"), (MissingExtraError("no", found="JPEG-LS"), "missing-codec")],
)
def test_want_of_memory_or_decoder(scan: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str) -> None:
    def fail(path: Path, accept: object, *, series: str | None) -> None:
        raise error

    monkeypatch.setattr(checks, "load", fail)
    assert [f.code for f in check_scan(scan).findings] == [code]
