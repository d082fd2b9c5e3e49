"""The model card: filled in from the run where it knows, marked where it does not."""

from __future__ import annotations

import json
from pathlib import Path

from m2unet.cohort.manifest import Manifest
from m2unet.report.checklists import CLAIM, TRIPOD_AI
from m2unet.report.model_card import FOR_THE_USER, NOT_KNOWN, checklist_lines
from m2unet.workflows.model_card import write_evaluation_card, write_model_card
from m2unet.workflows.run_folder import RunFolder


def test_training_leaves_a_card(run: RunFolder) -> None:
    text = (run.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Trained on digital phantoms; not for patients." in text and "Research use only" in text
    card = json.loads((run.model / "model.json").read_text())
    assert card["weights_sha256"] in text and f"{card['parameters']} parameters" in text
    split = json.loads(run.split_file.read_text())
    assert f"train {len(split['train'])} scans of " in text and "logistic map fitted on" in text
    assert NOT_KNOWN in text, "nothing was evaluated yet"


def test_an_evaluation_fills_in_performance(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    interval = {"estimate": 0.9, "low": 0.8, "high": None}
    found = {
        "figures": {"per_scan": {"auc": {**interval, "high": 0.97}}, "scans": 9, "patients": 7, "failed": 0},
        "appraisal": {
            "leakage": {"found": False, "checked": True, "reason": None},
            "at_point": {"recall": {"estimate": None, "low": None, "high": None}},
            "subgroups": {"site": [], "age": []},
            "abstention": {"kept": 7, "errors_kept": 1, "abstained": 2, "errors_abstained": 1},
        },
    }
    (tmp_path / "summary.json").write_text(json.dumps(found))
    before = (run.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    path = write_model_card(run.path, cohort.rows, tmp_path / "summary.json")
    assert path is not None
    text = path.read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    assert "auc 0.900 [0.800, 0.970]; sensitivity at the operating point undefined" in text
    assert "none on both sides" in text and "figures by site, age" in text and "1 of 7 answered scans wrong" in text
    assert "the test scans are of the same cohort" in text and "9 scans of 7 patients" in text
    assert write_model_card(tmp_path) is None


def test_another_cohort_gets_a_card_beside_its_results(run: RunFolder, cohort: Manifest, tmp_path: Path) -> None:
    interval = {"estimate": 0.7, "low": 0.6, "high": 0.8}
    found = {"figures": {"per_scan": {"auc": interval}, "scans": 14, "patients": 7, "failed": 0}, "appraisal": None}
    (tmp_path / "summary.json").write_text(json.dumps(found))
    before = (run.path / "MODEL_CARD.md").read_bytes()
    for given in (run.path, run.model):
        path = write_evaluation_card(given, cohort.rows, tmp_path)
        assert path == tmp_path / "MODEL_CARD.md"
        lines = path.read_text(encoding="utf-8").splitlines()
        assert "| 33 | testing on external data | 14 scans of 7 patients; 0 more could not be scored |" in lines
        assert f"| 32 | evaluation on internal data | {NOT_KNOWN} |" in lines
        assert any(line.startswith("| 20c |") and f"evaluated: {len(cohort.rows)} scans" in line for line in lines)
        assert any(line.startswith("| 23a |") and "auc 0.700 [0.600, 0.800]" in line for line in lines)
    assert (run.path / "MODEL_CARD.md").read_bytes() == before
    assert write_evaluation_card(tmp_path, cohort.rows, tmp_path) is None
    own = json.loads(run.split_file.read_text())
    tested = [cohort.by_id(scan_id) for scan_id in own["test"]]
    path = write_evaluation_card(run.path, tested, tmp_path)
    assert path is not None and "the test scans are of the same cohort" in path.read_text(encoding="utf-8")


def test_every_item_of_both_lists_is_there_once() -> None:
    """TRIPOD+AI has 27 items, CLAIM's update 44."""
    assert [item.number for item in CLAIM] == [str(number) for number in range(1, 45)]
    numbers = [item.number for item in TRIPOD_AI]
    assert len(set(numbers)) == len(numbers) == 52
    assert sorted({int(number.rstrip("abcdefg")) for number in numbers}) == list(range(1, 28))
    lines = checklist_lines(TRIPOD_AI, {"data": "a | b"})
    assert lines[2].endswith(f"{FOR_THE_USER} |") and any("a \\| b" in line for line in lines)
