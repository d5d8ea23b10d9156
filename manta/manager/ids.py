"""Ids of what the manager makes: short enough to type a part of, random enough to be unique."""

from __future__ import annotations

import secrets


def new_id() -> str:
    return secrets.token_hex(8)
