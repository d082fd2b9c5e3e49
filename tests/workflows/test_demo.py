"""The demo, small: every file it promises, and resumable."""

from __future__ import annotations

import json
from pathlib import Path

from m2unet.workflows.demo import run_demo
from tests.small_cohort import TINY


def test_the_demo_makes_what_it_promises_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run_demo(out, seed=1, overrides=TINY, scans=14)
    summary = json.loads((out / "summary.json").read_text())
    assert summary == result.summary
    assert set(summary) >= {"auc", "mean_lobe_dice", "test_scans", "test_patients", "seconds"}
    assert summary["test_scans"] == len(result.evaluation.scores) > 0
    for name in ("learning_curves.png", "roc.png", "lobes.png"):
        assert (out / "figures" / name).read_bytes()[:4] == b"\x89PNG"
    assert (out / "model" / "weights.safetensors").is_file()
    assert (out / "evaluation" / "results.md").is_file()
    assert result.prediction.error is None
    split = json.loads((out / "split.json").read_text())
    tested = {score.scan_id for score in result.evaluation.scores}
    assert tested == set(split["test"])
    patient = {s.scan_id: s.patient_id for s in result.evaluation.scores}
    trained = {scan_id.rsplit("-", 1)[0] for scan_id in (*split["train"], *split["validation"])}
    assert not trained & set(patient.values()), "a patient on two sides of the split"
    stamp = (out / "model" / "weights.safetensors").stat().st_mtime_ns
    again = run_demo(out, seed=1, overrides=TINY, scans=14)
    assert (out / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert again.evaluation == result.evaluation
