"""Whether a swarm's log went back: to a backup that was restored, or to an older database.

What came since is lost then, and the swarm goes on in another timeline, which begins with Rewound.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from manta.manager.context import Context
from manta.manager.swarm.events import Rewound
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.views import ClusterView


@dataclass
class Timeline:
    context: Context
    view: ClusterView
    machine: SwarmMachine
    log: logging.LoggerAdapter[logging.Logger]
    rewound: str = field(init=False)
    """To where the log went back, as far as this actor knows; "" if it did not."""

    def __post_init__(self) -> None:
        """From a backup that the log was restored from, unless it has gone on since."""
        restored, data = self.context.restored, self.machine.data
        self.rewound = ""
        if restored is not None and data.backup != restored.backup:
            self.rewound = restored.backup if data.last <= restored.made_at else ""

    def ahead(self, node_id: str, upto: int) -> Rewound | None:
        """A node was told that its journal is held up to this entry: if it is not, the database is
        older than that.

        Of a node that was never given anything here, nothing can be missed, whatever it says.
        """
        held = self.machine.applied(node_id)
        if upto <= held or self.machine.state.final:
            return None
        if node_id not in self.machine.data.given:
            return Rewound(self.machine.data.backup, {node_id: upto})
        if self.context.restored is None or self.rewound != self.context.restored.backup:
            self.log.error(
                "the manager's database is older than what it told its nodes: %s has been told "
                "that its journal is stored up to entry %d, and here are %d. What came since is "
                "lost, and tasks that run are run again. Was manta.db copied back, or its -wal "
                "file lost?",
                *(self.view.aliases.get(node_id, node_id), upto, held),
            )
        # One id for each start of the manager, so that only the first node has tasks run again.
        self.rewound = self.rewound or f"older than its nodes at {self.context.started_at:.3f}"
        return Rewound(self.rewound, {node_id: upto})
