"""What a node takes for a name in a task's request is what `manta.light` lets through."""

from __future__ import annotations

from ast import literal_eval

import msgspec
import pytest

from manta.light import arguments
from manta.light.wire import BrokenFrame
from manta.node.task_server import wire
from manta.protocol.names import MAX_NAME, is_name

LONGEST = "ä" * MAX_NAME


@pytest.mark.parametrize(
    "request_",
    [
        {"k": "get_global", "tag": LONGEST},
        {"k": "add_result", "tag": LONGEST, "value": b""},
        {"k": "get_state", "key": LONGEST},
        {"k": "lock", "name": LONGEST, "timeout": 1.0},
        {"k": "resolve_node", "name": LONGEST},
        {"k": "log_metrics", "metrics": {LONGEST: 1.0}, "step": None},
        {"k": "schedule_next_iteration", "node_ids": [LONGEST], "alias": LONGEST},
    ],
)
def test_one_rule_for_names(request_: dict[str, object]) -> None:
    assert is_name(LONGEST)
    assert arguments.tag(LONGEST) == LONGEST
    encoded = msgspec.msgpack.encode({**request_, "n": 1})
    wire.from_attempt(encoded)
    assert not is_name(LONGEST + "ä")
    with pytest.raises(ValueError, match="1 to 200 printable characters"):
        arguments.tag(LONGEST + "ä")
    longer = repr({**request_, "n": 1}).replace(LONGEST, LONGEST + "ä")
    with pytest.raises(BrokenFrame, match="length <= 200"):
        wire.from_attempt(msgspec.msgpack.encode(literal_eval(longer)))
