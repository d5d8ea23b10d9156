"""A swarm's metrics, and a server that answers trackers with one status."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from manta.apis.overviews import MetricsOverview, SwarmOverview
from manta.protocol.node import Instance
from manta.protocol.user import FeedPage, MetricsItem

SWARM = SwarmOverview("5eed", "study/1", "lab", "ACTIVE", "", 0, None, 0.0, None, None, 1)


def page(cursor: int, *losses: float, ended: bool = False) -> FeedPage:
    items = tuple(
        MetricsItem(Instance("5eed", "w", 0, at), "id", "node 1", {"loss": loss}, None, 1.5)
        for at, loss in enumerate(losses)
    )
    return FeedPage(items, cursor, ended, None)  # type: ignore[arg-type]


def entry(step: int, **metrics: float) -> MetricsOverview:
    return MetricsOverview(1.5, "id", "a", "w", 0, step, 0, metrics, None)


class Answers(ThreadingHTTPServer):
    """Answers every request with `status`."""

    status: int


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()
