"""What an owner's policy says of a request: a function of both.

A rule speaks of a request where all its selectors fit: users, keys, swarms, modules, images and
datasets. A request for several datasets is one for each of them. What the rules that speak of it
say holds together, and where they contradict each other the strictest does: deny before ask before
allow, the times and tags that all of them allow, the smallest size, the strongest isolation. Of
what no rule speaks, `otherwise` does.

Who asks is a key. Its address is a name for it: that of the policy's table of users, or else the
one under which the owner has approved it, or under which it was seen first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from manta.protocol.isolation import LIMITS, rank

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DIGEST = "digest:"
"""Begins a pattern of modules that is of a digest, or of its beginning."""
NO_IMAGE = "none"
"""What a pattern of images says of modules that name none."""
MOST_LEFT = "values of an instance may leave in an iteration, and so many have"
MOST_QUOTED = 3
"""Rules that a sentence quotes."""


class Verdict(IntEnum):
    """The greater, the stricter."""

    ALLOW = 0
    ASK = 1
    DENY = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Moment(msgspec.Struct, frozen=True):
    """By the owner's clock; `day` counts from 0, Monday."""

    day: int
    minute: int

    def __str__(self) -> str:
        return f"{DAYS[self.day]} {self.minute // 60:02}:{self.minute % 60:02}"


class Hours(msgspec.Struct, frozen=True):
    """Minutes of a day: from `begin` on, until before `end`, maybe over midnight."""

    begin: int
    end: int

    def __contains__(self, minute: int) -> bool:
        if self.begin <= self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


class Rule(msgspec.Struct, frozen=True):
    """Selectors are patterns (`*`, `?`); None fits all. `line` is where it begins in its file."""

    line: int = 0
    name: str = ""
    users: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    swarms: tuple[str, ...] | None = None
    modules: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    approve: Verdict = Verdict.ALLOW
    hours: Hours | None = None
    days: tuple[str, ...] | None = None
    isolation: str = LIMITS
    network: bool = True
    """Whether a task may run where it reaches the network."""
    cohort: int = 1
    """The least number of instances of the task in an iteration."""
    results: tuple[str, ...] | None = None
    """Patterns of the tags of values that may leave; None: all."""
    largest: int | None = None
    """Bytes of one value."""
    most: int | None = None
    """Values of one instance in an iteration, of all its attempts together."""
    exchange: bool | None = None
    """Whether tasks may tell each other anything; None: unless what leaves is limited."""
    failures: bool | None = None
    """Whether what code says of its failure may leave; None: unless what leaves is limited."""
    logs: bool | None = None
    """Whether the lines that code writes may leave; None: unless what leaves is limited."""
    shares: bool = False
    """Whether a value may leave in a sum of at least `cohort` nodes alone."""

    @property
    def limits(self) -> bool:
        """Whether it limits what leaves."""
        return self.shares or (self.results, self.largest, self.most) != (None, None, None)

    @property
    def lets_exchange(self) -> bool:
        return not self.limits if self.exchange is None else self.exchange

    @property
    def lets_logs(self) -> bool:
        return not self.limits if self.logs is None else self.logs

    @property
    def lets_failures(self) -> bool:
        """What a failure says are words of the code's, as its lines are."""
        said = not self.limits and self.logs is not False
        return said if self.failures is None else self.failures

    @property
    def lets_sums(self) -> bool:
        return self.lets_exchange or (self.shares and self.exchange is None)


class Policy(msgspec.Struct, frozen=True):
    file: str = "policy.toml"
    """Its name, as it is quoted."""
    rules: tuple[Rule, ...] = ()
    otherwise: Verdict = Verdict.DENY
    new_keys: str = "ask"
    """What becomes of keys that are not known: ask, deny, or first: the first one of an address is
    taken and kept."""
    users: Mapping[str, tuple[str, ...]] = {}
    """The fingerprints of their keys, by address."""


class Request(msgspec.Struct, frozen=True):
    """What an attempt needs. `key` is the fingerprint of who has signed it, "" if nobody has;
    `forged`: the key that is named has not."""

    user: str
    key: str
    swarm: str
    module: str
    digest: str = ""
    image: str | None = None
    datasets: tuple[str, ...] = ()
    isolation: str = LIMITS
    instances: int = 1
    outbound: tuple[str, ...] = ()
    """Where it is to connect to."""
    at: Moment = Moment(0, 0)
    forged: bool = False


class SumLimit(msgspec.Struct, frozen=True, array_like=True):
    """For what an attempt's value may leave: sums of so many nodes or more, and as of `Leaves`."""

    nodes: int
    largest: int | None = None
    most: int | None = None
    before: int = 0
    """Values of the instance that have left in its iteration so far."""


class Leaves(msgspec.Struct, frozen=True):
    """What may leave of an attempt. Tags have to fit one pattern of each group."""

    results: tuple[tuple[str, ...], ...] = ()
    largest: int | None = None
    most: int | None = None
    exchange: bool = True
    """What tasks tell each other is not looked at: it may leave as it is, or not at all."""
    failures: bool = True
    """What code says of its failure may quote any value: it may leave as it is, or not at all."""
    logs: bool = True
    """So may the lines that it writes, and the messages of its progress."""
    alone: bool = True
    """Whether a value may leave but as a part of a sum."""
    sums: int = 0
    """The least number of nodes whose values are in a sum for which one may leave, where tasks may
    tell each other nothing else; 0: it may leave in none."""

    def __str__(self) -> str:
        said = [" and ".join(", ".join(one) for one in self.results) or "all tags"]
        if not self.alone:
            said = ["no value by itself"]
        if self.largest is not None:
            said.append(f"up to {self.largest:,} bytes each")
        if self.most is not None:
            said.append(f"up to {self.most} values of each instance in an iteration")
        if self.sums:
            said.append(f"to other tasks its part of sums of {self.sums} nodes or more")
        else:
            said.append("what tasks tell each other" if self.exchange else "nothing to other tasks")
        said.append("what failures say" if self.failures else "of failures only their kind")
        said.append("log lines" if self.logs else "of log lines only their number")
        return "; ".join(said)

    @property
    def company(self) -> float:
        """The fewest nodes among which it may tell others something."""
        return 1 if self.exchange else self.sums or math.inf

    def closes(self, before: Leaves) -> bool:
        """Whether an attempt may tell others less than before: what it has opened to them stays as
        it was."""
        if self.company > before.company:
            return True
        both = (self.largest, before.largest), (self.most, before.most)
        return bool(self.sums) and any(_is_less(now, then) for now, then in both)

    @property
    def everything(self) -> bool:
        return self == Leaves()

    def flaw(self, tag: str, size: int, before: int) -> str:
        """Why a value may not leave after so many others, "" if it may. A value that has no tag is
        none of those that are named."""
        if not self.alone:
            return "no value may leave by itself, but as a part of a sum (all_reduce)"
        for patterns in self.results:
            if not any(fnmatchcase(tag, one) for one in patterns):
                what = f"the tag {tag!r}" if tag else "what has no tag"
                return f"{what} is not among those that may leave ({', '.join(patterns)})"
        if self.largest is not None and size > self.largest:
            return f"it has {size:,} bytes, and {self.largest:,} may leave"
        if self.most is not None and before >= self.most:
            return f"{self.most} {MOST_LEFT}"
        return ""


def _is_less(now: int | None, then: int | None) -> bool:
    """Of bounds; None: there is none."""
    return now is not None and (then is None or now < then)


class Decision(msgspec.Struct, frozen=True):
    verdict: Verdict
    why: str
    """Quotes the rules that decided, without a full stop."""
    leaves: Leaves = Leaves()


def decide(policy: Policy, request: Request, seen: Mapping[str, Collection[str]]) -> Decision:
    """`seen` are the fingerprints of the keys that are known beside those of the policy, by
    address."""
    said = [_of_key(policy, request, seen)]
    speak: list[Rule] = []
    for dataset in request.datasets or ("",):
        found = [rule for rule in policy.rules if _fits(rule, request, dataset)]
        speak += [rule for rule in found if rule not in speak]
        said.extend(
            (verdict, f"{_quoted(policy, rule)}: {what}")
            for rule in found
            for verdict, what in _says(rule, request)
        )
        if not found:
            about = f"dataset {dataset!r}" if dataset else "tasks without a dataset"
            what = f"no rule of {policy.file} speaks of {about} for {_asks(request)}"
            word = policy.otherwise.word
            said.append((policy.otherwise, f'{what}, and otherwise = "{word}"'))
    verdict = max(verdict for verdict, _ in said)
    quoted = list(dict.fromkeys(why for its, why in said if its is verdict and why))
    more = len(quoted) - MOST_QUOTED
    why = "; ".join(quoted[:MOST_QUOTED]) + (f"; and {more} more" if more > 0 else "")
    return Decision(verdict, why, _leaves(speak))


def _asks(request: Request) -> str:
    return f"{request.user}, swarm {request.swarm!r}, module {request.module!r}"


def _quoted(policy: Policy, rule: Rule) -> str:
    name = f'rule "{rule.name}"' if rule.name else "the rule"
    return f"{name} ({policy.file}, line {rule.line})"


def _of_key(
    policy: Policy, request: Request, seen: Mapping[str, Collection[str]]
) -> tuple[Verdict, str]:
    user, key = request.user, request.key
    if request.forged:
        return Verdict.DENY, (
            f"the manager says that {user} asks for this, and the key {key} that it names has "
            "signed something else"
        )
    if not key:
        return Verdict.DENY, (
            "nobody has signed the swarm, and its node has a policy: deploy it with this version "
            "of Manta"
        )
    listed = policy.users.get(user)
    if listed is not None and key in listed:
        return Verdict.ALLOW, ""
    others = [name for name, keys in (*policy.users.items(), *seen.items()) if key in keys]
    if user in others:
        if listed is None:
            return Verdict.ALLOW, ""
    elif others:
        return (
            Verdict.DENY,
            f"the manager says that {user} asks, and the key {key} is {others[0]}'s",
        )
    if listed is not None:
        return Verdict.DENY, (
            f"{key}, the key that has signed it, is not among those that {policy.file} lists for "
            f"{user}"
        )
    if policy.new_keys == "first" and not seen.get(user):
        return Verdict.ALLOW, ""
    verdict = Verdict.DENY if policy.new_keys == "deny" else Verdict.ASK
    what = f'{key} is a new key of {user}, and new_keys = "{policy.new_keys}"'
    return verdict, f"{policy.file}: {what}"


def _fits(rule: Rule, request: Request, dataset: str) -> bool:
    def any_of(patterns: tuple[str, ...] | None, text: str) -> bool:
        return patterns is None or any(fnmatchcase(text, one) for one in patterns)

    return (
        any_of(rule.users, request.user)
        and any_of(rule.keys, request.key)
        and any_of(rule.swarms, request.swarm)
        and any_of(rule.images, request.image or NO_IMAGE)
        and (rule.datasets is None or (bool(dataset) and any_of(rule.datasets, dataset)))
        and (rule.modules is None or any(_is_module(one, request) for one in rule.modules))
    )


def _is_module(pattern: str, request: Request) -> bool:
    if pattern.startswith(DIGEST):
        return bool(request.digest) and request.digest.startswith(pattern.removeprefix(DIGEST))
    return fnmatchcase(request.module, pattern)


def _says(rule: Rule, request: Request) -> Iterator[tuple[Verdict, str]]:
    yield rule.approve, f'approve = "{rule.approve.word}"'
    at = request.at
    if rule.hours is not None and at.minute not in rule.hours:
        hours = "-".join(f"{m // 60:02}:{m % 60:02}" for m in (rule.hours.begin, rule.hours.end))
        yield Verdict.DENY, f'hours = "{hours}", and it is {at}'
    if rule.days is not None and DAYS[at.day] not in rule.days:
        yield Verdict.DENY, f"days = {_listed(rule.days)}, and it is {at}"
    if rank(request.isolation) < rank(rule.isolation):
        told = f'isolation = "{rule.isolation}", and it would run at "{request.isolation}"'
        yield Verdict.DENY, told
    if not rule.network and request.isolation == LIMITS:
        yield Verdict.DENY, f'network = "none", and tasks reach it at "{LIMITS}"'
    if not rule.network and request.outbound:
        yield Verdict.DENY, f'network = "none", and it connects to {", ".join(request.outbound)}'
    if request.instances < rule.cohort:
        yield Verdict.DENY, f"cohort = {rule.cohort}, and it has {request.instances} instances"


def _listed(words: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _leaves(rules: Iterable[Rule]) -> Leaves:
    rules = list(rules)
    groups = dict.fromkeys(rule.results for rule in rules if rule.results is not None)
    sizes = [rule.largest for rule in rules if rule.largest is not None]
    counts = [rule.most for rule in rules if rule.most is not None]
    shares = any(rule.shares for rule in rules)
    lets_sums = all(rule.lets_sums for rule in rules)
    return Leaves(
        tuple(groups),
        min(sizes, default=None),
        min(counts, default=None),
        exchange=all(rule.lets_exchange for rule in rules) and not shares,
        failures=all(rule.lets_failures for rule in rules),
        logs=all(rule.lets_logs for rule in rules),
        alone=not shares,
        sums=max(rule.cohort for rule in rules) if shares and lets_sums else 0,
    )


def shown(policy: Policy) -> dict[str, Any]:
    """The policy in force, its defaults filled in, as its file would say it."""
    return {
        "file": policy.file,
        "otherwise": policy.otherwise.word,
        "new_keys": policy.new_keys,
        "users": {user: list(keys) for user, keys in policy.users.items()},
        "rules": [_shown(rule) for rule in policy.rules],
    }


def _shown(rule: Rule) -> dict[str, Any]:
    found = msgspec.structs.asdict(rule)
    found["approve"] = rule.approve.word
    found["network"] = "any" if rule.network else "none"
    found["exchange"] = "any" if rule.lets_exchange else "none"
    found["failures"] = "any" if rule.lets_failures else "none"
    found["logs"] = "all" if rule.lets_logs else "summary"
    found["share"] = "all_reduce" if found.pop("shares") else "any"
    if rule.hours is not None:
        ends = (rule.hours.begin, rule.hours.end)
        found["hours"] = "-".join(f"{m // 60:02}:{m % 60:02}" for m in ends)
    return found
