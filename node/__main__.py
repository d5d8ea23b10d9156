"""`python -m manta.node`."""

from __future__ import annotations

import sys

from manta.node.daemon import main

if __name__ == "__main__":
    sys.exit(main())
