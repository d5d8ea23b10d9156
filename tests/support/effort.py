"""How much is tried at random: with `MANTA_TEST_EFFORT=10`, ten times as much as usually."""

from __future__ import annotations

import os

EFFORT = float(os.environ.get("MANTA_TEST_EFFORT", "1"))


def tries(usual: int) -> int:
    return max(1, round(usual * EFFORT))
