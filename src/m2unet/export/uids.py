"""UIDs that follow from what they name, so that the same input names the same object."""

from __future__ import annotations

import hashlib
import uuid

PLACEHOLDER_UID = "2.25.0"
"""Stands in for the series and SOP instance UIDs until :func:`m2unet.export.seal.seal`."""


def derive_uid(*parts: object) -> str:
    """A UID that depends on ``parts`` alone: 2.25 and a UUID made of their SHA-256 (PS3.5 B.2)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
