"""Follows the feeds of a swarm to its end, on a screen."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from manta.apis.errors import ApiClosed
from manta.apis.overviews import EventOverview, LogOverview, MetricsOverview, SwarmOverview
from manta.protocol.user import EventItem, FeedName, FeedPage, LogItem, MetricsItem, ReadFeed

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI
    from manta.cli.live.view import SwarmView
    from manta.console.lines import Line
    from manta.console.terminal import Screen

REDRAW = 0.1
"""Seconds between redraws of the live lines on a terminal."""

Happening = FeedPage | Exception | Callable[[], None]


class Follower:
    """Reads each feed in a thread of its own and shows them in the caller's.

    When an iteration's end is read, the metrics that came before it are read as well, so that
    its summary is complete.
    """

    def __init__(self, api: UserAPI, swarm: SwarmOverview, view: SwarmView, screen: Screen) -> None:
        self._api = api
        self._swarm = swarm
        self._view = view
        self._screen = screen
        self._happenings: queue.SimpleQueue[Happening] = queue.SimpleQueue()
        self._metrics_lock = threading.Lock()
        self._metrics_cursor = 0
        self._threads: list[threading.Thread] = []

    def interject(self, happening: Callable[[], None]) -> None:
        """Runs something in the thread that shows. Thread-safe."""
        self._happenings.put(happening)

    def run(self, *, logs: bool) -> SwarmOverview:
        """Shows what happens until the swarm ends. Raises what the API raises."""
        feeds: list[FeedName] = ["events", "metrics"]
        if logs:
            feeds.append("logs")
        for feed in feeds:
            read = self._read_metrics if feed == "metrics" else self._read
            thread = threading.Thread(target=self._guarded, args=(read, feed), name=f"feed-{feed}")
            thread.start()
            self._threads.append(thread)
        open_feeds = len(feeds)
        pause = REDRAW if self._screen.is_terminal else None
        while open_feeds:
            lines: list[Line] = []
            try:
                happening = self._happenings.get(timeout=pause)
                while True:
                    open_feeds -= self._take(happening, lines)
                    happening = self._happenings.get_nowait()
            except queue.Empty:
                self._screen.show(lines, self._view.live(time.time()))
        self._screen.show([])
        self.join()
        return self._api.get_swarm(self._swarm)

    def join(self) -> None:
        """Waits for the threads, which end with the swarm or when the API is closed."""
        for thread in self._threads:
            thread.join()

    def _take(self, happening: Happening, lines: list[Line]) -> bool:
        """Shows something; returns whether a feed has ended with it."""
        if isinstance(happening, Exception):
            raise happening
        if not isinstance(happening, FeedPage):
            happening()
            return False
        lines += self._view.logs(
            [LogOverview.of(item) for item in happening.items if isinstance(item, LogItem)]
        )
        for item in happening.items:
            match item:
                case EventItem():
                    lines += self._view.event(EventOverview.of(item))
                case MetricsItem():
                    self._view.metric(MetricsOverview.of(item))
        return happening.ended

    def _guarded(self, read: Callable[[FeedName], None], feed: FeedName) -> None:
        try:
            read(feed)
        except ApiClosed:
            return
        except Exception as error:
            self._happenings.put(error)

    def _pages(self, feed: FeedName) -> Iterator[FeedPage]:
        return self._api.connection.pages(self._swarm.swarm_id, feed, follow=True)

    def _read(self, feed: FeedName) -> None:
        for page in self._pages(feed):
            if any(isinstance(item, EventItem) and item.kind == "iteration" for item in page.items):
                self._catch_up()
            self._happenings.put(page)

    def _catch_up(self) -> None:
        """Reads all metrics that there are so far."""
        with self._metrics_lock:
            while True:
                request = ReadFeed(self._swarm.swarm_id, "metrics", self._metrics_cursor)
                page = self._api.connection.ask(request, FeedPage, again=True)
                self._put_metrics(page, False)
                if page.ended or not page.items:
                    return

    def _read_metrics(self, feed: FeedName) -> None:
        for page in self._pages(feed):
            with self._metrics_lock:
                self._put_metrics(page, page.ended)

    def _put_metrics(self, page: FeedPage, ended: bool) -> None:
        """Passes on the metrics that the other thread has not passed on yet."""
        fresh = max(0, page.cursor - self._metrics_cursor)
        items = page.items[len(page.items) - fresh :] if fresh else ()
        self._metrics_cursor = max(self._metrics_cursor, page.cursor)
        self._happenings.put(FeedPage(items, page.cursor, ended, page.swarm))
