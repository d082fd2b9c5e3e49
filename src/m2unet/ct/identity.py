"""What names a scan without saying whose it is: digests of its identifiers."""

from __future__ import annotations

import hashlib


def uid_digest(uid: str) -> str:
    """SHA-256 of a DICOM UID, which stands for it where the UID itself must not appear.

    Args:
        uid: as the header has it; surrounding blanks and the padding zero byte do not count.

    Returns:
        64 hexadecimal digits; the first eight are what is shown.
    """
    return hashlib.sha256(uid.strip(" \0").encode()).hexdigest()
