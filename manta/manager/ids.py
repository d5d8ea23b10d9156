"""Random ids, short enough that a user can type a prefix."""

from __future__ import annotations

import secrets


def new_id() -> str:
    return secrets.token_hex(8)
