"""What a node keeps on disk."""

from manta.node.state.folder import StateFolder, StateLock, open_to_readers, remove_folder
from manta.node.state.hardware import hardware_id, place_of
from manta.node.state.records import Identity, Member, Status

__all__ = [
    "Identity",
    "Member",
    "StateFolder",
    "StateLock",
    "Status",
    "hardware_id",
    "open_to_readers",
    "place_of",
    "remove_folder",
]
