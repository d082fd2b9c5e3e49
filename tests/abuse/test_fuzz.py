"""Damaged and hostile input: an answer or a clear error, soon, in little memory; never a traceback or a crash."""

from __future__ import annotations

import gzip
import json
import os
import resource
import string
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m2unet.cohort.manifest import Manifest, read_manifest
from m2unet.config import load_config, parse_config
from m2unet.ct.checks import check_scan
from m2unet.errors import M2UNetError
from m2unet.models.registry import build_model
from m2unet.models.weights import save_model
from m2unet.training.state import TrainingState, save_state
from tests.ct.samples import chest as dicom_chest
from tests.ct.samples import write_series
from tests.guard.no_network import with_guard
from tests.inference.conftest import chest

ROOT = Path(__file__).resolve().parents[2]
PEAK_MIB = 900
"""Importing torch and SimpleITK takes about 400; what a damaged small file may cost beyond that is bounded by this."""

COUNT = int(os.environ.get("M2UNET_FUZZ_COUNT", "60"))


def fuzz(kind: str, folder: Path, count: int = COUNT, seed: int = 0) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.abuse.fuzz", kind, str(folder), str(count), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": with_guard(str(ROOT / "src"), str(ROOT)), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert found["accepted"] + found["refused"] == count
    assert found["refused"] > 0
    assert found["slowest_s"] < 20
    assert found["peak_mib"] < PEAK_MIB
    return found


def write_chest(path: Path, *, compress: bool = False) -> Path:
    volume = chest((12, 40, 48), (5.0, 6.0, 6.0))
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing((6.0, 6.0, 5.0))
    path.parent.mkdir(parents=True)
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("name", ["a.nii", "b.nii.gz", "c.mha", "d.mhd", "e.nrrd", "f.mha"])
def test_damaged_files_of_every_format(tmp_path: Path, name: str) -> None:
    fuzz("scan", write_chest(tmp_path / "good" / name, compress=name in ("e.nrrd", "f.mha")).parent)


def test_damaged_slices_of_a_series(tmp_path: Path) -> None:
    write_series(tmp_path / "good", dicom_chest((8, 20, 24)))
    fuzz("scan", tmp_path / "good")


def test_damaged_manifests(cohort: Manifest, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    rows = [{"scan_id": r.scan_id, "patient_id": r.patient_id, "image": str(r.image)} for r in cohort.rows[:4]]
    text = "scan_id,patient_id,image\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "good" / "cohort.csv").write_text(text)
    fuzz("manifest", tmp_path / "good", 150)


def test_damaged_models_and_training_states(tmp_path: Path) -> None:
    sizes = ["model.width=2", "model.deep_width=2", "model.instance_concepts=2", "model.bag_concepts=2"]
    config = load_config("paper", sizes)
    model = build_model(config.model)
    save_model(model, config, tmp_path / "model")
    fuzz("model", tmp_path / "model", 100)
    (tmp_path / "state").mkdir()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    save_state(TrainingState(model=model.state_dict(), optimiser=optimiser.state_dict()), tmp_path / "state")
    fuzz("state", tmp_path / "state", 100)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_lowercase, max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
sections = st.sampled_from(["preset", "seed", "prepare", "window", "bag", "model", "train", "else"])
keys = st.sampled_from(["size", "patch", "name", "width", "lr", "epochs", "low_hu", "classes", "inplane_mm", "x"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(sections, values | st.dictionaries(keys, values, max_size=4), max_size=4))
def test_any_mapping_is_a_configuration_or_refused(mapping: dict[str, object]) -> None:
    try:
        parse_config(mapping)
    except M2UNetError as error:
        assert error.problem


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_override_is_taken_or_refused(text: str) -> None:
    try:
        load_config("paper", [text])
    except M2UNetError as error:
        assert error.problem


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600), st.sampled_from([".nii", ".mha", ".nrrd", ".dcm", ".csv", ".yaml"]))
def test_any_bytes_are_answered(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{ending}"
        path.write_bytes(content)
        assert not check_scan(path).ok
        for read in (read_manifest, load_config):
            try:
                read(path)
            except M2UNetError as error:
                assert error.problem


def test_sizes_of_terabytes_cost_nothing(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good = write_chest(tmp_path / "n" / "good.nii").read_bytes()
    header = bytearray(good)
    struct.pack_into("<8h", header, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    cases = {
        "huge.nii": bytes(header),
        "bomb.nii.gz": gzip.compress(bytes(header) + bytes(1 << 26)),
        "huge.mha": b"NDims = 3\nDimSize = 99999999 99999999 999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
        "out.mhd": b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n",
        "up.mhd": b"NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = ../n/good.nii\n",
        "huge.nrrd": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9999999 9999999 9999999\nencoding: raw\n\n",
    }
    expected = {"out.mhd": "unsafe-reference", "up.mhd": "unsafe-reference"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        found = check_scan(tmp_path / name)
        assert found.findings[0].code == expected.get(name, "too-large"), (name, found.findings[0])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * (1 if sys.platform == "darwin" else 1024) < 200 << 20


def test_a_bomb_of_declared_size_is_followed_no_further(tmp_path: Path) -> None:
    good = write_chest(tmp_path / "n" / "good.nii").read_bytes()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(good + bytes(1 << 28)))
    assert path.stat().st_size < 1 << 20
    assert np.prod(check_scan(path).shape or ()) == 12 * 40 * 48
