"""Whether this machine has bubblewrap: tests of sandboxes are skipped without it, or fail with
MANTA_TEST_SANDBOX=required."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta.node.errors import LaunchError
from manta.node.runners.bwrap import find


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    try:
        find([Path.home()])
    except LaunchError as error:
        if os.environ.get("MANTA_TEST_SANDBOX") == "required":
            pytest.fail(f"MANTA_TEST_SANDBOX=required, but {error}", pytrace=False)
        pytest.skip(f"needs a sandbox: {error}")
