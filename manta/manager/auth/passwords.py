"""Passwords as argon2id hashes.

A hash takes 64 MiB and about 0.15 s on purpose. At most two are computed at a time, so that
parallel sign-ins cannot exhaust memory. An unknown user costs as much as a wrong password,
so that nobody learns which addresses exist.
"""

from __future__ import annotations

import secrets
import threading

from manta.protocol.base import MAX_PASSWORD

MEMORY = 64 * 1024 * 1024
PASSES = 3
AT_A_TIME = 2
MIN_LENGTH, MAX_LENGTH = 8, MAX_PASSWORD

_slots = threading.BoundedSemaphore(AT_A_TIME)
_NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=1$SekYaIKPpekAQ+SuLUBPwA$"
    "tEZYiJCUrulKDqpHqJdnqQp9YagoRB2dAdffdfZh5Xo"
)
"""A hash whose password nobody knows. A test checks that it costs as much as ours."""


def hash_password(password: str) -> str:
    from nacl.pwhash import argon2id

    with _slots:
        return argon2id.str(password.encode(), opslimit=PASSES, memlimit=MEMORY).decode()


def verify_password(stored: str | None, password: str) -> bool:
    """`stored` is None for an unknown user and "" for a user without a password."""
    from nacl.exceptions import InvalidkeyError
    from nacl.pwhash import argon2id

    with _slots:
        try:
            argon2id.verify((stored or _NOBODY).encode(), password[:MAX_LENGTH].encode())
        except (InvalidkeyError, ValueError):  # what is stored may be damaged, and be no hash
            return False
    return bool(stored)


def flaw(password: str) -> str:
    """What is wrong with a new password, as a sentence, or nothing."""
    if MIN_LENGTH <= len(password) <= MAX_LENGTH:
        return ""
    return (
        f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters, not {len(password)}; choose "
        "another one."
    )


def random_password() -> str:
    """96 random bits, in groups that are easy to read out."""
    return "-".join(secrets.token_hex(3) for _ in range(4))
