"""`python -m manta.light`: the process that a node starts for a task."""

from __future__ import annotations

import sys

from manta.light.runtime.main import main

if __name__ == "__main__":
    sys.exit(main())
