"""Limits and times of bulk between two peers."""

from __future__ import annotations

from dataclasses import dataclass

from manta.transports.sealed.records import MAX_CHUNK

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Pace:
    """How chunks move on a connection; bytes."""

    chunk: int = 512 * KIB
    window: int = MIB  # of a transfer, beyond what was received; what a lost connection costs
    report: int = 512 * KIB  # of a transfer, received and not told; the same at both ends
    allowance: int = 1024 * MIB  # sent and not acknowledged, over all transfers
    whole: int = 0  # of a transfer that is granted at once, and moves in the largest steps

    def __post_init__(self) -> None:
        if not 0 < self.chunk <= MAX_CHUNK:
            raise ValueError(f"a chunk has 1 to {MAX_CHUNK} bytes, not {self.chunk}")
        if not 0 <= 2 * self.report <= self.window:
            raise ValueError("the window must hold twice what is not reported")

    def chunk_of(self, size: int) -> int:
        return MAX_CHUNK if self._is_small(size) else self.chunk

    def window_of(self, size: int) -> int:
        return max(size, self.window) if self._is_small(size) else self.window

    def report_of(self, size: int) -> int:
        return max(self.whole // 8, self.report) if self._is_small(size) else self.report

    def _is_small(self, size: int) -> bool:
        return 0 < size <= self.whole


@dataclass(frozen=True)
class PeerOptions:
    """Of one peer. Times in seconds."""

    pace: Pace = Pace(whole=32 * MIB)
    open: int = 256  # transfers of one side that are open, the same at both; others wait there
    queued: int = 65_536  # transfers that wait; more are refused to the caller
    patience: float = 30.0  # for which a transfer waits that nobody expects yet
    connect: float = 3.0  # in which a connection is made
    handshake: float = 5.0  # in which it is admitted
    heartbeat: float = 2.0  # without anything to send, a PING is
    silence: float = 10.0  # without a byte from the peer, or none taken by it, it is given up
    message: float = 60.0  # in which a chunk that began must end

    def __post_init__(self) -> None:
        pace = self.pace
        report = max(pace.report, pace.report_of(pace.whole))
        chunk = max(pace.chunk, pace.chunk_of(pace.whole))
        if (self.open - 1) * report + chunk > pace.allowance:
            raise ValueError("transfers would wait for each other: raise the allowance")
        if not 0 < self.heartbeat < self.silence:
            raise ValueError("heartbeat must be positive and shorter than silence")
