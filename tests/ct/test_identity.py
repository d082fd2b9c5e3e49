"""Digests that stand for identifiers."""

from __future__ import annotations

import hashlib

from m2unet.ct.identity import uid_digest


def test_a_uid_has_one_digest_whatever_it_is_padded_with() -> None:
    expected = hashlib.sha256(b"1.2.840.1").hexdigest()
    assert {uid_digest(uid) for uid in ("1.2.840.1", "1.2.840.1\0", " 1.2.840.1 ")} == {expected}
    assert uid_digest("1.2.840.2") != expected
