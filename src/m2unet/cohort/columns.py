"""The columns of a manifest: those that mean something here, and a user's own, which are kept and handed through."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

REQUIRED_COLUMNS = ("scan_id", "patient_id", "image")
OPTIONAL_COLUMNS = ("lobes", "severity", "grade", "site", "age", "sex", "date", "lesions", "accept")
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS

HEADER_HINT = f"name the columns {', '.join(REQUIRED_COLUMNS)}, and where known {', '.join(OPTIONAL_COLUMNS)}"

_MISSPELT = 0.8
"""A name this much like a known one (difflib's ratio) is taken for a slip of the pen."""

_SIMILAR = 0.6
"""From here on it is kept as a column of the user's own, with a warning."""


@dataclass(frozen=True)
class Header:
    """The header of a manifest.

    Attributes:
        names: one per column, known ones in lower case, the user's own as they are.
        faults: what forbids reading the rows.
        warnings: own columns that may be meant for known ones.
    """

    names: tuple[str, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def own(self) -> tuple[str, ...]:
        """Columns of the user's own, in order."""
        return tuple(name for name in self.names if name not in COLUMNS)


def read_header(cells: Sequence[str]) -> Header:
    """Tell known columns from a user's own, and both from misspelt ones.

    Args:
        cells: of the header row.
    """
    names = tuple(name.lower() if (name := cell.strip()).lower() in COLUMNS else name for cell in cells)
    lower = [name.lower() for name in names]
    missing = [column for column in REQUIRED_COLUMNS if column not in lower]
    faults, warnings = [], []
    for number, name in enumerate(lower, 1):
        if not name:
            faults.append(f"column {number} holds values and has no name")
        elif name not in COLUMNS:
            near, sure = _meant(name, [column for column in COLUMNS if column not in lower])
            hint = f", did you mean {near!r}" if near else ""
            if sure or missing:  # it may be the column that is missing
                faults.append(f"unknown column {name!r}{hint}")
            elif near:
                warnings.append(f"column {names[number - 1]!r} is kept as one of your own{hint}")
    faults += [f"missing column {column!r}" for column in missing]
    faults += [f"column {name!r} occurs twice" for name in sorted({n for n in lower if n and lower.count(n) > 1})]
    return Header(names, tuple(faults), tuple(warnings))


def _meant(name: str, absent: Sequence[str]) -> tuple[str | None, bool]:
    """The known column that a name is most like, if any, and whether it surely is that one misspelt.

    Only columns that are not there can be meant: beside ``lobes``, a column ``lobe`` is the user's own.
    """
    plain = name.replace(" ", "_").replace("-", "_")
    squeezed = plain.replace("_", "")
    for column in absent:
        if squeezed == column.replace("_", ""):
            return column, True
    near = next(iter(difflib.get_close_matches(plain, absent, n=1, cutoff=_SIMILAR)), None)
    if near is None:
        words = set(re.split(r"[^a-z0-9]+", plain))
        near = next((column for column in absent if column in words or column.rstrip("s") in words), None)
        return near, False
    return near, difflib.SequenceMatcher(None, plain, near).ratio() >= _MISSPELT
