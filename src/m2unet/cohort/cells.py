"""Cells of a manifest that are more than text."""

from __future__ import annotations

import datetime
import math
import re
from typing import Literal, cast

from m2unet.ct.findings import ACCEPTABLE

Sex = Literal["M", "F", "O"]

_SEX = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
MAX_AGE = 120


def parse_age(text: str) -> float | None:
    """Years from 0 to 120, also with a decimal comma; None if it is none."""
    try:
        age = float(text.replace(",", "."))  # spreadsheets write 63,5 in half of the world
    except ValueError:
        return None
    return age if math.isfinite(age) and 0 <= age <= MAX_AGE else None


def parse_accept(text: str) -> tuple[str, ...] | None:
    """Codes of errors that a user may know better, separated by spaces; None if one of them is none."""
    codes = tuple(dict.fromkeys(text.replace(",", " ").replace(";", " ").split()))
    return codes if set(codes) <= set(ACCEPTABLE) else None


def parse_sex(text: str) -> Sex | None:
    """``M``, ``F`` or ``O`` from the usual words; None if it is none."""
    return cast("Sex | None", _SEX.get(text.lower()))


def parse_date(text: str) -> datetime.date | None:
    """A date written ``YYYY-MM-DD``; None if it is none."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None
