"""docs/promises.md names tests that exist and findings that can occur."""

from __future__ import annotations

import re
from pathlib import Path

from m2unet.ct.findings import KINDS

TESTS = Path(__file__).parent
ROWS = [
    row.split("|")[1:4]
    for row in (TESTS.parent / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
    if row.startswith("| **")
]


def test_every_promise_names_tests_that_exist() -> None:
    assert len(ROWS) > 15
    for promise, _, tests in ROWS:
        files = re.findall(r"`([\w/]+\.py)`", tests)
        assert files, promise
        for file in files:
            assert "def test_" in (TESTS / file).read_text(encoding="utf-8"), file


def test_every_finding_it_names_is_known() -> None:
    named = {code for row in ROWS for code in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", row[1])}
    assert named and named <= set(KINDS), named - set(KINDS)
