"""`python -m manta.node`."""

from __future__ import annotations

import sys

from manta.console.early import guard

if __name__ == "__main__":
    guard(ending=False)  # before what takes time to import
    from manta.node.daemon.process import main

    sys.exit(main())
