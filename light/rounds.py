"""One round, in the process that runs it."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from manta.light.client import RoundClient
from manta.light.context import Brief, usage
from manta.light.seeding import seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.light.failures import Failure
    from manta.light.loader import Target


class Round:
    """Opened before the user's code runs, so that all it prints belongs to this round."""

    def __init__(self, path: str, token: str, brief: Brief, folder: str, ends: list[int]) -> None:
        """`ends`: stdout, stderr and log socket, which it takes over. Raises NodeLost."""
        self._folder = folder
        self._name = brief.name
        flush()
        for number, fd in enumerate(ends[:2], 1):
            os.dup2(fd, number)
            os.close(fd)
        self._log_end = socket.socket(fileno=ends[2])
        self._client = RoundClient(path, token, brief)
        self._client.open()
        usage.context = self._client
        usage.log_sink = self._log_end
        seed(brief)
        self._started = time.monotonic()

    def run(self, prepare: Callable[[], Target]) -> None:
        """Run what `prepare` gives, and tell the node how it ended. Raises NodeLost."""
        outcome: dict[str, Any]
        try:
            output = prepare().run()
            outcome = {"output": self._client.payload(output)}
        except SystemExit as error:
            from manta.light.failures import exited

            failure = exited(error, self._name)
            outcome = (
                {"output": self._client.payload(None)} if failure is None else {"error": failure}
            )
        except BaseException as error:
            outcome = {"error": self._describe(error)}
        computing = time.monotonic() - self._started - self._client.moving
        flush()
        try:
            self._client.end(max(0.0, computing), outcome)
        finally:
            self._close()

    def _describe(self, error: BaseException) -> Failure:
        from manta.light.failures import describe
        from manta.light.loader import NothingToRun

        if isinstance(error, NothingToRun):
            return ["NothingToRun", str(error), ""]
        return describe(error, self._name, self._folder)

    def _close(self) -> None:
        usage.context = usage.log_sink = None
        self._client.close()
        try:
            self._log_end.close()
        except OSError:
            return  # user code closed all descriptors that it did not know


def flush() -> None:
    """Write out what user code printed; it may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
