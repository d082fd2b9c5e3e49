"""The line of a predicted case names each warning with its figure and what can be done."""

from __future__ import annotations

from pathlib import Path

from m2unet.cli.predict import _line
from m2unet.report.result import FindingPart
from m2unet.workflows.case import CaseOptions, write_case
from m2unet.workflows.predict import Case, CaseOutcome
from tests.report.conftest import make_prediction


def test_warnings_are_named_on_the_line(tmp_path: Path) -> None:
    whole = write_case(make_prediction(), "one", tmp_path, CaseOptions(montage=False, report=False))
    side = FindingPart(code="lobe-side", level="warning", found="RUL lies 90 mm to the left of LUL", mend="look")
    note = FindingPart(code="padding", level="note", found="some voxels", mend="none needed")
    document = whole.model_copy(update={"findings": (side, note)})
    line = _line(CaseOutcome(Case("one", Path("one")), tmp_path, document))
    first, *rest = line.splitlines()
    assert "lungs" in first and rest == ["  lobe-side: RUL lies 90 mm to the left of LUL. To mend: look."]
    none = _line(CaseOutcome(Case("one", Path("one")), tmp_path, document.model_copy(update={"findings": ()})))
    assert none.splitlines() == [first]
