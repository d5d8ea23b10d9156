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

    def registered(self, node_id: str, upto: int, last: int) -> Rewound | None:
        """A node was told that its journal is held up to the entry `upto`: if it is not, the
        database is older than that. What a node has up to its `last` entry when it registers first
        is of the former timeline, whose attempts may have the names of later ones.

        Of a node that was never given anything here, nothing can be missed, whatever it says.
        """
        data, held = self.machine.data, self.machine.applied(node_id)
        reached = max(last, held)
        if self.machine.state.final:
            return None
        if upto <= held:
            is_new = data.backup and node_id in data.given and node_id not in data.heard_since
            return Rewound(data.backup, {node_id: reached}) if is_new else None
        if node_id not in data.given:
            return Rewound(data.backup, {node_id: reached})
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
        if self.rewound == data.backup:
            return Rewound(self.rewound, {node_id: reached})
        # Those that are here already will not register first after this.
        here = {one.id for one in self.view.node_views if one.connected} & data.given
        others = {one: self.machine.applied(one) for one in sorted(here)}
        return Rewound(self.rewound, {**others, node_id: reached})
