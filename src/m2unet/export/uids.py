"""UIDs that follow from what they name, so that the same input names the same object."""

from __future__ import annotations

import hashlib
import uuid

LENGTH = 44
"""Of every UID made here: 2.25 and 39 digits, so that one can stand in for another in an encoded object."""

PLACEHOLDER_SERIES_UID = "2.25." + "1" * 39
PLACEHOLDER_INSTANCE_UID = "2.25." + "2" * 39
"""Stand in for the UIDs that :func:`m2unet.export.seal.seal` derives from the object."""


def derive_uid(*parts: object) -> str:
    """A UID that depends on ``parts`` alone: 2.25 and a UUID made of their SHA-256 (PS3.5 B.2)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    while len(uid := f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}") < LENGTH:
        digest = hashlib.sha256(digest).digest()
    return uid
