"""What `manta explain TASK` shows."""

from __future__ import annotations

import msgspec

from manta.apis.failures import TaskExplanation
from manta.cli.failures import exit_words, failure_lines
from manta.protocol.bundle import Moment, Usage

FOUND = TaskExplanation(
    *("s.worker.0.0.1", "worker", 0, 0, 1, "FAILED", "n", "node-1", 1.0, 2.0, 3.0, None),
    sentence="worker.0 raised ValueError.",
    traceback="line 3",
    last_lines=("the last",),
    has_bundle=True,
    isolation="bwrap",
    exit_code=-9,
    out_of_memory=True,
    usage=Usage(memory=1 << 20, memory_limit=2 << 20, cpu=1.5, processes_limit=5),
    packages={"numpy": "2"},
    timeline=(Moment("queued", 10.0), Moment("ended", 12.0)),
    redacted=("stacks",),
)


def shown(found: TaskExplanation) -> str:
    return "\n".join(map(str, failure_lines(found, None)))


def test_all_that_is_known_is_shown() -> None:
    text = shown(FOUND)
    for words in (
        "worker.0 in iteration 0 (attempt 2) on node-1: FAILED",
        "worker.0 raised ValueError.",
        "isolation   bwrap",
        "exit        ended by SIGKILL, out of memory",
        "memory      1.0 MiB of 2.0 MiB",
        "processor   1.50 s",
        "processes   at most 5",
        "packages    1, which --json lists",
        "held back   stacks",
        "2.00 s  ended",
        "line 3",
        "the last",
    ):
        assert words in text
    assert "Stacks" not in text


def test_of_what_did_not_fail_nothing_is_known() -> None:
    fine = msgspec.structs.replace(FOUND, sentence="", has_bundle=False)
    assert "Nothing is known to have gone wrong" in shown(fine)
    lost = msgspec.structs.replace(FOUND, has_bundle=False)
    assert "kept nothing else" in shown(lost)


def test_how_a_process_ended() -> None:
    assert exit_words(None, out_of_memory=False) == ""
    assert exit_words(3, out_of_memory=False) == "code 3"
    assert exit_words(-60, out_of_memory=False) == "ended by signal 60"
