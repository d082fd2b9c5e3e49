"""The table of findings, the code that uses it and the page that shows it agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import m2unet.ct
from m2unet.ct.findings import ACCEPTABLE, KINDS, QualityError, accepted, check_accept, finding
from m2unet.errors import ConfigError
from m2unet.inference.plausibility import CODES

ROOM = Path(m2unet.ct.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "reading.md"


def test_every_kind_is_used_and_every_use_is_known() -> None:
    checks = [ROOM.parent / "inference" / name for name in ("whole_chest.py", "plausibility.py")]
    pages = [*ROOM.glob("*.py"), *checks]
    text = "".join(path.read_text() for path in pages if path.name != "findings.py")
    used = set(re.findall(r'finding\(\s*"([a-z0-9-]+)"', text)) | set(re.findall(r'"([a-z]+(?:-[a-z]+)+)" if ', text))
    used |= set(re.findall(r' else "([a-z]+(?:-[a-z]+)+)"', text))
    used |= {name for name in KINDS if f'"{name}" if kind' in text}
    masks = [ROOM.parent / "cohort" / "masks.py", *(ROOM.parent / "cohort" / "mask_files").glob("*.py")]
    used |= set(re.findall(r'"(mask-[a-z]+)"', "".join(path.read_text() for path in masks)))
    assert used | set(CODES.values()) == set(KINDS)


def test_the_page_shows_the_table() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \|", PAGE.read_text(), re.MULTILINE))
    assert rows == {code: ", ".join(kind.levels) for code, kind in KINDS.items()}


def test_levels() -> None:
    assert finding("gantry-tilt", "x").level == "warning"
    assert finding("gantry-tilt", "x", "note").level == "note"
    assert finding("gantry-tilt", "x").to_dict() == {
        "code": "gantry-tilt",
        "level": "warning",
        "found": "x",
        "mend": KINDS["gantry-tilt"].mend,
    }
    with pytest.raises(KeyError):
        finding("no-such-thing", "x")


def test_an_error_says_what_and_how_to_mend() -> None:
    error = QualityError([finding("padding", "note only"), finding("missing-slices", "two missing")])
    assert "two missing" in str(error) and KINDS["missing-slices"].mend in str(error)
    assert "note only" not in str(error) and len(error.findings) == 2


def test_only_errors_that_a_user_may_know_better_are_accepted() -> None:
    assert {"lungs-absent", "lobes-absent", "body-absent", "windowed"} <= set(ACCEPTABLE)
    assert all({"error", "warning"} <= set(KINDS[code].levels) for code in ACCEPTABLE)
    assert check_accept(["lungs-absent"]) == {"lungs-absent"}
    for code in ("no-such-thing", "eight-bit"):
        with pytest.raises(ConfigError, match=f"{code}.*lungs-absent"):
            check_accept([code])
    found = accepted([finding("lungs-absent", "x"), finding("eight-bit", "y")], ["lungs-absent"])
    assert [f.level for f in found] == ["warning", "error"]
