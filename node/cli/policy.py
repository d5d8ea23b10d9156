"""`manta_node policy`: shows a node's policy, and what it says of a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from manta.console.commands import Group, as_json_option
from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines
from manta.node.cli.config import NAME
from manta.node.daemon.places import config_of, state_folder
from manta.node.errors import OperatorError
from manta.protocol.isolation import DOCKER, LEVELS, LIMITS
from manta.protocol.outbound import PREFIX, Target, entry_of, lets_out, targets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from manta.node.config import NodeConfig
    from manta.node.policy.records import OwnerRecords
    from manta.node.policy.rules import Decision, Policy, Request


@click.group(cls=Group)
def policy() -> None:
    """Show the node's policy, and which of its rules say what of a request."""


@policy.command("show")
@NAME
@as_json_option
def policy_show(name: str, as_json: bool) -> None:
    """Show the rules in force, and whose keys are known."""
    from manta.console import json_form
    from manta.node.policy.records import OwnerRecords
    from manta.node.policy.rules import shown

    config, found = _policy(name)
    records = OwnerRecords(state_folder(name).owner)
    seen = known(records)
    record = {**shown(found), "file": config.policy, "seen": seen}
    if as_json:
        json_form.show(record)
        return
    lines = [
        f"{config.policy}: what no rule speaks of is {_WORDS[found.otherwise.word]}; keys that are "
        f"new: {found.new_keys}."
    ]
    for rule in record["rules"]:
        title = f' "{rule["name"]}"' if rule["name"] else ""
        said = {key: value for key, value in rule.items() if key not in ("line", "name")}
        said = {key: value for key, value in said.items() if value is not None}
        words = "; ".join(f"{key} {_said(value)}" for key, value in said.items())
        lines.append(f"line {rule['line']}{title}: {words}")
    for user, keys in {**seen, **found.users}.items():
        where = "listed" if user in found.users else "seen"
        lines.append(f"{user} ({where}): {', '.join(keys)}")
    print_lines(*lines)


_WORDS = {"allow": "allowed", "ask": "asked for", "deny": "denied"}


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


@policy.command("test")
@NAME
@click.option("--user", required=True, help="The address of who asks.")
@click.option("--module", required=True, help="The module's name.")
@click.option("--dataset", "datasets", multiple=True, help="A dataset; may be repeated.")
@click.option("--key", help="The fingerprint of the key.  [default: one that is known of USER]")
@click.option("--swarm", default="", help="The swarm's name.")
@click.option("--digest", default="", help="The digest of the module's package.")
@click.option("--image", help="The image that the module names.")
@click.option("--isolation", type=click.Choice(LEVELS), help="The level at which it runs.")
@click.option(
    "--outbound", multiple=True, metavar="HOST:PORT", help="It connects there; may be repeated."
)
@click.option("--instances", default=1, type=click.IntRange(1), help="Of the task.")
@click.option("--at", metavar="TIME", help="When: such as 2026-12-01T23:00.  [default: now]")
@as_json_option
def policy_test(
    name: str,
    user: str,
    module: str,
    datasets: tuple[str, ...],
    key: str | None,
    swarm: str,
    digest: str,
    image: str | None,
    isolation: str | None,
    outbound: tuple[str, ...],
    instances: int,
    at: str | None,
    as_json: bool,
) -> int:
    """Show what the policy says of a request, and which rule says so; nothing is asked or run.

    A node without a policy allows all. With --outbound, also which entry of network.allow lets it
    connect there. The exit code is 0 if it is allowed, and 6 if it is denied or the owner is to be
    asked.
    """
    from manta.console import json_form
    from manta.node.policy.admission import moment
    from manta.node.policy.rules import Request, Verdict

    config = config_of(name)
    targets = _targets(outbound)
    level = isolation or _level(name, image)
    request = Request(
        user=user,
        key=key or "",
        swarm=swarm,
        module=module,
        digest=digest,
        image=image,
        datasets=datasets,
        isolation=level,
        instances=instances,
        outbound=tuple(f"{PREFIX}{target}" for target in targets),
        at=moment(_time(at)),
    )
    decision = _decision(name, config, request)
    verdict, why = decision.verdict, decision.why
    ways = {target: entry_of(target, config.network_allow) for target in targets}
    if closed := _closed(config, ways, level):
        why = "; ".join((why, *closed) if verdict is Verdict.DENY else closed)
        verdict = Verdict.DENY
    if as_json:
        shown = [{"target": str(target), "entry": entry or None} for target, entry in ways.items()]
        json_form.show(
            {"verdict": verdict.word, "why": why, "leaves": str(decision.leaves), "ways": shown}
        )
    else:
        print_lines(f"{verdict.word}: {why or 'all rules that speak of it allow it'}.")
        if verdict is not Verdict.DENY:
            print_lines(
                *(f'network.allow has "{entry}" for {target}.' for target, entry in ways.items()),
                f"What may leave: {decision.leaves}.",
            )
    return Exit.OK if verdict is Verdict.ALLOW else Exit.DENIED


def _decision(name: str, config: NodeConfig, request: Request) -> Decision:
    """Without a key in the request, as of one that is known of its user, else of a new one."""
    from manta.node.policy import reading
    from manta.node.policy.records import OwnerRecords
    from manta.node.policy.rules import Decision, Verdict, decide

    if config.policy is None:
        return Decision(Verdict.ALLOW, _without_policy(name))
    found, seen = reading.load(config.policy), known(OwnerRecords(state_folder(name).owner))
    if not request.key:
        keys = (*found.users.get(request.user, ()), *seen.get(request.user, ()))
        request = msgspec.structs.replace(request, key=keys[0] if keys else "a-key-that-is-new")
    return decide(found, request, seen)


def _without_policy(name: str) -> str:
    return f"the node {name} has no policy, so all that its cluster's users deploy may run"


def _targets(outbound: Iterable[str]) -> tuple[Target, ...]:
    try:
        return targets_of(f"{PREFIX}{text.removeprefix(PREFIX)}" for text in outbound)
    except ValueError as error:
        raise click.BadParameter(f"--outbound: {error}.") from None


def _closed(config: NodeConfig, ways: Mapping[Target, str], level: str) -> list[str]:
    """Why it may not connect to all of these, whatever the rules say."""
    lacking = [str(target) for target, entry in ways.items() if not entry]
    allowed = ", ".join(f'"{entry}"' for entry in config.network_allow) or "nothing"
    closed = [
        f"it connects to {', '.join(lacking)}, and network.allow of {config.path} has {allowed}"
    ]
    flaw = lets_out(level, ways) if ways else ""
    return closed * bool(lacking) + [f"this node {flaw}"] * bool(flaw)


def _policy(name: str) -> tuple[NodeConfig, Policy]:
    """Raises OperatorError if the node has none."""
    from manta.node.policy import reading

    config = config_of(name)
    if config.policy is None:
        raise OperatorError(
            f"There is nothing to show: {_without_policy(name)}. "
            f"Name a file of rules as policy.file in {config.path}."
        )
    return config, reading.load(config.policy)


def known(records: OwnerRecords) -> dict[str, tuple[str, ...]]:
    """The keys that were seen or approved, by address."""
    from manta.node.policy.consent import keys_of

    found = {user: set(keys) for user, keys in records.asked().seen.items()}
    for user, keys in keys_of(records.decided().consents).items():
        found.setdefault(user, set()).update(keys)
    return {user: tuple(sorted(keys)) for user, keys in found.items()}


def _level(name: str, image: str | None) -> str:
    """As the running node says; else what is certain."""
    from manta.node.daemon import background
    from manta.protocol.isolation import level_of

    levels = background.record(name, state_folder(name)).get("isolation") or ""
    runners = tuple(level.strip() for level in str(levels).split(",") if level.strip() in LEVELS)
    return level_of(runners, image=image is not None) or (DOCKER if image else LIMITS)


def _time(at: str | None) -> float:
    if at is None:
        return time.time()
    from datetime import datetime

    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        raise click.BadParameter(f"--at {at!r} is no time such as 2026-12-01T23:00.") from None
