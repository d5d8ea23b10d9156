"""One container, from its creation to its removal, on a thread of its own.

The engine may go away under it and come back. While it is away nobody knows what the
container does: a task that talks to the node goes on, or is told lost by its connection;
of one that does not (`patience`) nothing is known, and it is given up after a while. What is to
be removed is removed when the engine is back.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from manta.light.runtime.processes import ENDING_TIME
from manta.node.errors import EngineError
from manta.node.isolation.limits import more_memory
from manta.node.runners.engine import Away, Engine, Gone
from manta.node.runners.interface import RuntimeExit

log = logging.getLogger("manta.node.runners")

Output = Iterable[tuple[bytes | None, bytes | None]]
"""What comes of stdout and of stderr."""

_GRACE = 1  # seconds between SIGTERM and SIGKILL
_PAUSE = 0.5  # seconds until an engine that is away is asked again
_TAIL = 4096  # bytes kept of what was said on stderr
_SIGNALLED = 128  # what shells and inits add to a signal's number


class Container:
    """Starts its thread at once. `pump` takes the container's output, where it is given."""

    def __init__(
        self,
        engine: Engine,
        session: str,
        options: Callable[[Any], dict[str, Any]],
        on_exit: Callable[[RuntimeExit], None],
        *,
        pump: Callable[[Output], None] | None = None,
        patience: float | None = None,
    ) -> None:
        self.session = session
        self._engine = engine
        self._options = options
        self._on_exit = on_exit
        self._pump = pump
        self._patience = patience
        self._id = ""
        self._image = ""
        self._lock = threading.Lock()
        self._began = time.time()
        self._is_running = False
        self._is_killed = False
        self._closing = threading.Event()
        self._stopper: threading.Thread | None = None
        self._thread = threading.Thread(
            target=self._live, name=f"manta-container-{session}", daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def kill(self) -> None:
        """Have it end: by SIGTERM, after a while by SIGKILL. Idempotent; from any thread."""
        with self._lock:
            if self._is_killed:
                return
            self._is_killed = True
            if self._is_running and self.is_alive:
                self._stopper = threading.Thread(target=self._stop, name="manta-container-stop")
                self._stopper.start()

    def close(self) -> None:
        """Kill it, and do not wait for an engine that is away."""
        self._closing.set()
        self.kill()

    def join(self, timeout: float) -> bool:
        """Whether it is gone."""
        for thread in (self._thread, self._stopper):
            if thread is not None:
                thread.join(timeout)
        return not self.is_alive

    # The thread.

    def _live(self) -> None:
        try:
            exit_ = self._run()
        except EngineError as error:
            exit_ = self._lost(str(error), platform=isinstance(error, Away))
        except Exception as error:
            log.exception("The container of session %s could not be watched.", self.session)
            exit_ = self._lost(f"The node failed to watch the container: {error!r}.")
        is_removed = self._remove()
        self._on_exit(exit_)
        while not is_removed and not self._closing.wait(_PAUSE):
            is_removed = self._remove()
        if not is_removed:
            log.warning(
                "Container %s could not be removed, since the engine is away; the node's next "
                "start removes it.",
                self._id[:12],
            )

    def _run(self) -> RuntimeExit:
        client = self._engine.client
        with self._engine.errors():
            self._id = client.create_container(**self._options(client))["Id"]
            with contextlib.ExitStack() as undo:
                output: Any = None
                if self._pump is not None:  # before the start: not a line is missed
                    output = client.attach(self._id, stream=True, demux=True)
                    undo.callback(_hang_up, output)
                client.start(self._id)
                with self._lock:
                    self._is_running = True
                if self._is_killed:
                    self._stop()
                if self._pump is not None:
                    self._pump(output)
        return self._outcome()

    def _stop(self) -> None:
        with contextlib.suppress(EngineError), self._engine.errors():
            is_image = self._pump is not None  # which knows nothing of Manta
            grace = _GRACE if is_image else int(ENDING_TIME)
            self._engine.client.stop(self._id, timeout=grace)

    def _outcome(self) -> RuntimeExit:
        away_since: float | None = None
        while True:
            try:
                return self._wait(was_away=away_since is not None)
            except Gone:
                return self._lost("The container was removed by somebody else than the node.")
            except Away as error:
                now = time.monotonic()
                if away_since is None:
                    away_since = now
                    log.warning("Container %s is out of sight: %s", self._id[:12], error)
                patience = self._patience
                is_over = patience is not None and now - away_since > patience
                if is_over or self._closing.wait(_PAUSE):
                    return self._lost(str(error))
            if self._is_killed:  # in vain, while the engine was away
                self._stop()

    def _wait(self, *, was_away: bool) -> RuntimeExit:
        client = self._engine.client
        with self._engine.errors():
            client.wait(self._id, timeout=None)
        with self._engine.errors():  # an engine that stops has ended its containers just before
            found = client.inspect_container(self._id)
        state, self._image = found["State"], f"{found['Config']['Image']} ({found['Image'][:19]})"
        with self._engine.errors():
            tail = client.logs(self._id, stdout=False, stderr=True, tail=100)[-_TAIL:]
        code = state["ExitCode"]
        said = tail.decode(errors="replace")
        if code > _SIGNALLED:
            code = _SIGNALLED - code
        if was_away:
            sentence = "The container ended with its engine, which was stopped or failed."
            return self._ended(code, said, sentence, platform=True)
        # A runtime tells of its attempts itself, and ends otherwise than they do.
        codes = {-signal.SIGKILL} if self._pump is None else {code} - {0}
        if state.get("OOMKilled") and code in codes and not self._is_killed:
            how = "was killed (SIGKILL)" if code == -signal.SIGKILL else f"ended with code {code}"
            limit = found["HostConfig"]["Memory"]
            sentence = f"The container {how}: it took {more_memory(limit)}"
            return self._ended(code, said, sentence)
        if code != 0 and not self._is_killed:
            signals = self._engine.signals(self._id, self._began)
            if ended_by := ending_signal(code, signals):
                sentence = (
                    f"The container was ended ({ended_by.name}) by somebody else than the node: "
                    "docker stop, kill or rm."
                )
                return self._ended(code, said, sentence, platform=True)
        return self._ended(code, said)

    def _ended(
        self, code: int, said: str, sentence: str = "", *, platform: bool = False
    ) -> RuntimeExit:
        return RuntimeExit(self.session, code, said, sentence, platform, self._image)

    def _lost(self, sentence: str, *, platform: bool = True) -> RuntimeExit:
        return RuntimeExit(self.session, None, "", sentence, platform)

    def _remove(self) -> bool:
        """Whether it is not there any more."""
        if not self._id:
            return True
        try:
            with self._engine.errors():
                self._engine.client.remove_container(self._id, v=True, force=True)
        except Gone:
            return True
        except EngineError as error:
            log.debug("Container %s is not removed yet: %s", self._id[:12], error)
            return False
        return True


def ending_signal(code: int, signals: set[int]) -> signal.Signals | None:
    """By which of the signals that it was sent a container ended, if by any.

    One that handles SIGTERM exits with a code of its own; others, SIGHUP say, it may outlive.
    """
    for number in (-code, signal.SIGKILL, signal.SIGTERM):
        if number in signals and number in signal.valid_signals():
            return signal.Signals(number)
    return None


def _hang_up(output: Any) -> None:
    """`output.close()` alone leaves the socket to the garbage collector."""
    output.close()
    output._response.close()
