"""Run a manager's module as `python -m` would, with nodes that are given up after a few seconds.

    python quick_leases.py manta.manager --home ...

For tests of what follows from a loss; how long a lease lasts is a matter of `lease.py`'s own.
"""

from __future__ import annotations

import runpy
import sys
from functools import partial

from manta.manager.cluster import nodes
from manta.manager.cluster.lease import Leases

vars(nodes).update(HEARTBEAT_INTERVAL=1.0, Leases=partial(Leases, ttl=5.0, grace=1.0))

sys.argv[:] = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
