"""What the owner lets in: orders pass here before they take a place.

Each is allowed, refused, or held until the owner says. What was let in is looked at again when the
owner says something else, or the policy is another, and is ended where that forbids it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from manta.actors import Actor
from manta.console.text import seconds
from manta.node.errors import StorageError
from manta.node.policy.admission import Admission, Ruling
from manta.node.policy.rules import Verdict
from manta.node.service.review import Review
from manta.node.shared.addresses import REVIEWS
from manta.node.shared.context import NodeContext
from manta.protocol.node import DENIED, Assignment, Instance, TaskError, TaskHeld

LOOK = 0.25
"""Seconds after which what the owner has said is looked for again: it is in effect within one."""
MOST_TOLD = 10_000
"""Denials that are remembered, so that each is recorded once of a swarm."""


class _LetIn(msgspec.Struct, frozen=True):
    order: Assignment
    ruling: Ruling
    at: float


class Door:
    """`offer` gives an order a place, `refuse` tells that it has none, `end` ends what runs."""

    def __init__(
        self,
        actor: Actor,
        context: NodeContext,
        admission: Admission,
        offer: Callable[[Assignment], None],
        refuse: Callable[[Instance, TaskError], None],
        end: Callable[[Instance, TaskError], None],
    ) -> None:
        self._actor = actor
        self._context = context
        self._admission = admission
        self._offer = offer
        self._refuse = refuse
        self._end = end
        self._looked_at = actor.clock.now()
        self._let_in: dict[Instance, _LetIn] = {}
        self._told: dict[tuple[str, str, str], None] = {}

    def take(self, order: Assignment) -> None:
        at = self._actor.clock.wall()
        ruling = self._admission.rule(order, at)
        match ruling.verdict:
            case Verdict.ALLOW:
                self._let(order, ruling, at)
            case Verdict.DENY:
                self._deny(order, ruling, at)
            case Verdict.ASK if self._context.draining:
                self._refuse(order.instance, _draining(order))
            case Verdict.ASK:
                self._hold(order, ruling, at)

    def drain(self) -> None:
        """What is held may run elsewhere: nobody need wait for the owner of a node that leaves."""
        for held in list(self._admission.held.values()):
            self._refuse(held.order.instance, _draining(held.order))

    def is_held(self, instance: Instance) -> bool:
        return instance in self._admission.held

    def ended(self, instance: Instance) -> None:
        self._admission.drop(instance)
        self._let_in.pop(instance, None)
        self._context.gate.ended(instance)

    def look(self) -> None:
        """At what the owner has said since, and at the time."""
        at, admission = self._actor.clock.wall(), self._admission
        before, self._looked_at = self._looked_at, self._actor.clock.now()
        if admission.passes(at, self._looked_at - before):
            sentence = "The clock is behind what it was: what is over stays over."
            self._actor.log.warning("%s", sentence)
            self._context.audit.owner(at, "clock-set-back")
        changed = admission.looked()
        if changed and admission.flaw:
            self._actor.log.error("Nothing is allowed to run: %s.", admission.flaw)
        # With what cannot be read nothing begins, and nothing ends.
        is_other = changed and not admission.flaw
        if is_other:
            for held in list(admission.held.values()):
                self._rule_again(held.order, at)
        over = [
            one for one in self._let_in.values() if is_other or one.ruling.is_over(admission.latest)
        ]
        for one in over:
            self._look_again(one, at)
        try:
            admission.save()
        except StorageError as error:
            self._actor.log.error("%s", error)
            self._context.check_storage(self._actor)

    def _rule_again(self, order: Assignment, at: float) -> None:
        """On what is held."""
        ruling = self._admission.rule(order, at)
        if ruling.verdict is Verdict.ALLOW:
            self._let(order, ruling, at)
        elif ruling.verdict is Verdict.DENY:
            self._deny(order, ruling, at)

    def _let(self, order: Assignment, ruling: Ruling, at: float) -> None:
        self._let_in[order.instance] = _LetIn(order, ruling, at)
        self._context.gate.begins(order.instance, ruling.leaves)
        self._admission.drop(order.instance)
        self._admission.settled(ruling.subject)
        self._offer(order)

    def _deny(self, order: Assignment, ruling: Ruling, at: float) -> None:
        why = ruling.why
        self._admission.drop(order.instance)
        sentence = f"{order.instance} was denied by its node's owner: {why}."
        self._actor.log.info("%s", sentence)
        self._record(order, at, "attempt-denied", why=why)
        self._refuse(order.instance, TaskError(DENIED, sentence))

    def _hold(self, order: Assignment, ruling: Ruling, at: float) -> None:
        if flaw := self._admission.hold(order, ruling, at):
            error = TaskError("Refused", f"{order.instance} was refused: {flaw}.")
            self._refuse(order.instance, error)
            return
        id_, since = ruling.subject.id, self._admission.since(ruling.subject)
        self._actor.log.info(
            "%s of %s waits for the owner since %s (`manta_node approve %s %s` shows why): %s",
            order.instance,
            order.user,
            seconds(max(0.0, at - since)),
            self._context.config.name,
            id_,
            ruling.why,
        )
        self._record(order, at, "approval-asked", request=id_, why=ruling.why)
        if self._context.has_holds:
            try:
                self._context.journals.append(TaskHeld(order.instance, since))
            except StorageError as error:
                self._actor.log.error("%s", error)
        if (package := order.module.package) is not None:
            self._actor.notify(REVIEWS, Review(package, order.instance.swarm_id))

    def _look_again(self, one: _LetIn, at: float) -> None:
        order = one.order
        ruling = self._admission.rule(order, at, one.at)
        # What it has opened to others stays open as long as it runs.
        is_closed = ruling.leaves.closes(one.ruling.leaves)
        if ruling.verdict is Verdict.ALLOW and not is_closed:
            self._let_in[order.instance] = _LetIn(order, ruling, one.at)
            self._context.gate.begins(order.instance, ruling.leaves)
            return
        less = "less than before" if ruling.leaves.sums else "nothing any more"
        closed = f"tasks may tell each other {less}" if is_closed else ""
        why = ruling.why or closed or "the owner allows it no more"
        sentence = f"{order.instance} was ended by its node's owner: {why}."
        self._record(order, at, "attempt-forbidden", why=why)
        del self._let_in[order.instance]
        self._end(order.instance, TaskError(DENIED, sentence))

    def _record(self, order: Assignment, at: float, act: str, **about: str) -> None:
        """Once of a swarm and what is said of it."""
        said = (order.instance.swarm_id, act, f"{order.instance.alias} {about}")
        if said in self._told:
            return
        self._told[said] = None
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._context.audit.about_order(at, act, order, **about)


def _draining(order: Assignment) -> TaskError:
    return TaskError("Refused", f"{order.instance} was refused: its node is being drained.")
