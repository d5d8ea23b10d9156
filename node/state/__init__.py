"""What a node keeps on disk."""

from manta.node.state.folder import StateFolder, StateLock
from manta.node.state.hardware import hardware_id
from manta.node.state.records import Identity, Member, Status
from manta.node.state.removal import remove_folder

__all__ = [
    "Identity",
    "Member",
    "StateFolder",
    "StateLock",
    "Status",
    "hardware_id",
    "remove_folder",
]
