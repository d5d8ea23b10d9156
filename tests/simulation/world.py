"""Virtual time and chance: those of the memory transport's network, which moves both."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from manta.protocol.values import BlobRef
from manta.testing.memory.medium import Faults, VirtualClock
from manta.testing.memory.network import MemoryNetwork, public_key_of
from manta.testing.memory.transport import MemoryTransport
from manta.transports.security.admission import Admission

STEPS = 40_000
"""No run needs so many."""
MANAGER = "manager"
ADDRESS = "tcp://manager:50051"


class Due:
    def __init__(self, call: Callable[[], object]) -> None:
        self.call, self.cancelled = call, False

    def __call__(self) -> None:
        if not self.cancelled:
            self.call()


class World:
    """All that happens, happens in `run`, one call after another."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = Random(seed)
        self.trace: list[str] = []
        self.steps = 0
        self.after_each: list[Callable] = []
        self.faults = Faults()
        self.network = MemoryNetwork(
            VirtualClock(),
            Random(seed),
            self.faults,
            trace=lambda at, text: self.note("network", text),
            raise_errors=True,
        )
        self.names = {public_key_of(f"id{n}"): f"id{n}" for n in range(1, nodes + 1)}
        self.admission = Admission(self.names, clock=lambda: self.now)
        self.transports: dict[str, MemoryTransport] = {}
        self.has_blob: Callable[[BlobRef], bool] = lambda blob: False

    @property
    def now(self) -> float:
        return self.network.clock.now()

    def after(self, delay: float, call: Callable, *args) -> Due:
        due = Due(lambda: call(*args))
        self.network.call_later(delay, due)
        return due

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while not done() and self.network.step(until):
            self.steps += 1
            assert self.steps < STEPS, "time stands still"
            for check in self.after_each:
                check()
        if not done():
            self.network.run_until(until)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def note(self, who: str, what: object) -> None:
        self.trace.append(f"{self.now:10.4f} {who:8} {what}")

    # Processes, by name; a second one of a name is the same process restarted.

    def boot(self, name: str) -> MemoryTransport:
        self.transports[name] = self.network.transport(name)
        return self.transports[name]

    def crash(self, name: str) -> None:
        self.network.crash(self.transports[name])

    def cut_off(self, name: str) -> None:
        self.network.partition(self.transports[name], self.transports[MANAGER])

    def heal(self, name: str) -> None:
        self.network.heal(self.transports[name], self.transports[MANAGER])

    def flap(self, name: str) -> None:
        self.network.break_links(self.transports[name])
