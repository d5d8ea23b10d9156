"""What the journals of nodes say, taken into the machine: what means something and is viable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from manta.manager.auth.principals import Kind, Principal
from manta.manager.context import Context
from manta.manager.swarm import journal, references, sentences
from manta.manager.swarm.bounds import Bounds
from manta.manager.swarm.commits import Commits
from manta.manager.swarm.events import EntriesReceived, Entry, Passed, QuotaReached, SwarmEvent
from manta.manager.swarm.machine import SwarmMachine
from manta.protocol.node import JournalAck, JournalBatch
from manta.protocol.values import BlobRef


@dataclass
class Intake:
    """Of one swarm. `feed` handles an event, with the blobs that are missing for what follows it;
    `acknowledge` tells a node what was taken without an event."""

    context: Context
    cluster_id: str
    machine: SwarmMachine
    commits: Commits
    bounds: Bounds
    log: logging.LoggerAdapter[logging.Logger]
    feed: Callable[[SwarmEvent, tuple[BlobRef, ...]], None]
    acknowledge: Callable[[str, JournalAck], None]
    strange: set[str] = field(default_factory=set)
    """Nodes that have reported on instances that they were never given."""

    def take(self, node_id: str, batch: JournalBatch) -> None:
        """Takes the entries up to the first that names a missing blob, without those that mean
        nothing.

        Entries that were applied before are skipped: their blobs may have been released since.
        """
        data = self.machine.data
        end = batch.first + len(batch.entries) - 1
        if data.full:  # what is left of it is acknowledged, and not kept
            self.acknowledge(node_id, JournalAck(data.swarm_id, end))
            return
        if not self.context.disk.takes_entries:
            return  # they wait on the node, which sends them again
        known = max(0, self.machine.applied(node_id) + 1 - batch.first)
        reader = journal.Reader(data, node_id)
        who = Principal(Kind.NODE, "", node_id, cluster_id=self.cluster_id)
        entries: list[Entry] = []
        missing: list[BlobRef] = []
        for entry in batch.entries[known:]:
            says = reader.says(entry)
            if says:
                missing += self.lacking(references.of_entry(entry), who)
            if not missing:
                entries.append(entry if says else Passed(1))
        strange = reader.strange and node_id not in self.strange
        if strange:
            self.strange.add(node_id)
            self.log.warning("%s", sentences.strange(node_id))
        viable = self.bounds.viable(entries)
        first = batch.first + min(known, len(batch.entries))
        self.feed(EntriesReceived(node_id, first, viable.entries, strange), tuple(missing))
        for quota, breach in viable.left_out.items():
            if quota not in self.bounds.told:
                self.bounds.told.add(quota)
                self.feed(QuotaReached(f"{breach.sentence} What comes later is left out."), ())
        if viable.fatal is not None:
            sentence = viable.fatal.sentence
            self.feed(QuotaReached(sentence, fatal=True, node_id=node_id, upto=end), ())

    def lacking(self, blobs: Iterable[BlobRef], who: Principal) -> list[BlobRef]:
        """Those that are not here, or not known to be the sender's to name."""
        fresh = [blob for blob in blobs if blob.digest not in self.commits.blobs]
        there = self.context.may_name(who, fresh) if fresh else ()
        return [blob for blob in fresh if blob.digest not in there]
