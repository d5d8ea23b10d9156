"""What placement knows of a node."""

from __future__ import annotations

from dataclasses import dataclass, field

from manta.protocol.node import Capabilities, Load


@dataclass(frozen=True)
class NodeView:
    """`assigned` counts the attempts of other swarms on the node.

    `returning`: it is not connected, but was a moment ago and may be back at once.
    """

    id: str
    alias: str
    capabilities: Capabilities
    connected: bool = True
    draining: bool = False
    returning: bool = False
    assigned: int = 0
    load: Load = field(default_factory=Load)
