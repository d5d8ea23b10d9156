"""Answers long polls of what changed in a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from manta.actors import Refused, Reply
from manta.manager import notices
from manta.manager.auth.rights import Right
from manta.manager.gateway.clusters import Clusters
from manta.manager.gateway.modules import Modules
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.permits import Permits
from manta.manager.long_polls import LongPolls
from manta.manager.revisions import Revisions
from manta.manager.store.records import ClusterRecord
from manta.manager.views import ClusterView
from manta.protocol import clusters, pages, user, users
from manta.protocol.node import Message

WatchRequest = clusters.WatchClusters | clusters.WatchNodes | user.WatchSwarms | users.WatchModules
Page = clusters.Clusters | clusters.Nodes | user.Swarms | users.Modules


class _Look(msgspec.Struct, frozen=True):
    at: type[Message]
    """The type of the message that asks for the list."""


@dataclass
class _Watch:
    request: Request[WatchRequest, ClusterRecord | None]
    reply: Reply
    since: str
    """The revision up to which the list was searched."""


class Watches(Part):
    """The actor passes what it receives to `handle` first."""

    def __init__(
        self, shared: Shared, permits: Permits, clusters_: Clusters, modules: Modules
    ) -> None:
        super().__init__(shared)
        self._permits = permits
        self._clusters = clusters_
        self._modules = modules
        self._polls = LongPolls[type[Message]](self._actor)
        revisions = self._context.revisions
        self._revisions: dict[type[Message], Revisions] = {
            clusters.WatchClusters: revisions.clusters,
            clusters.WatchNodes: revisions.nodes,
            user.WatchSwarms: revisions.swarms,
            users.WatchModules: revisions.modules,
        }

    def open(self, request: Request[WatchRequest, ClusterRecord | None]) -> None:
        message, reply = request.message, request.defer()
        kind = type(message)
        if not self._polls.waits_for(kind):  # before it is read, so that no later change is missed
            self._listen(kind)
        watch = _Watch(request, reply, message.since)
        self._polls.open(kind, reply, message.wait, lambda last: self._answer(watch, last))

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Look):
            return self._polls.handle(message)
        if self._polls.waits_for(message.at):
            self._listen(message.at)
            self._polls.wake(message.at)
        return True

    def _listen(self, kind: type[Message]) -> None:
        actor = self._actor  # if its mailbox is full, the polls are answered at their end
        self._revisions[kind].tell_next(lambda: actor.notify(actor.ref, _Look(kind)))

    def _answer(self, watch: _Watch, last: bool) -> bool:
        try:
            self._permits.recheck(watch.request)
            page, some = self._page(watch)
        except Refused as refusal:
            watch.reply.fail(refusal)
            return True
        if some or last:
            self._forwarder.answer(watch.reply, page)
            return True
        watch.since = page.revision
        return False

    def _page(self, watch: _Watch) -> tuple[Page, bool]:
        """As many changed items as a message holds, and whether there are any."""
        page, find = self._list(watch.request)
        found: list[Any] = []
        revisions = self._revisions[type(watch.request.message)]
        room, last = pages.PAGE_BYTES, 0
        for key, at in revisions.since(watch.since):
            if (item := find(key)) is not None:
                room -= pages.encoded(item)
                if room < 0 and found:
                    break
                found.append(item)
            last = at
        revision = revisions.revision(last) if last else watch.since
        return page(tuple(found), revision=revision), bool(found)

    def _swarm(self, views: Iterable[ClusterView], swarm_id: str) -> user.SwarmInfo | None:
        now, trouble = self._actor.clock.now(), self._context.trouble
        for view in views:
            if (info := view.swarms.get(swarm_id)) is not None:
                return notices.shown(view, info, trouble, now)
        return None

    def _list(
        self, request: Request[WatchRequest, ClusterRecord | None]
    ) -> tuple[type[Page], Callable[[str], object]]:
        """The kind of list, and what finds an item that the user sees by its key."""
        context, who, cluster_id = self._context, request.who, request.cluster_id
        match request.message:
            case clusters.WatchClusters():
                return clusters.Clusters, lambda id_: self._clusters.shown(id_, who)
            case clusters.WatchNodes():
                assert cluster_id is not None
                return clusters.Nodes, context.cluster(cluster_id).nodes.get
            case user.WatchSwarms():
                one = request.target
                where = [one] if one else self._permits.clusters(who, Right.SWARM_READ)
                views = [context.cluster(at.id) for at in where]
                return user.Swarms, lambda id_: self._swarm(views, id_)
            case users.WatchModules():
                return users.Modules, self._modules.shown(who)
