"""`manta_node approve`, `deny` and `revoke`: what the owner says to what waits for it."""

from __future__ import annotations

import getpass
import re
import time
from typing import TYPE_CHECKING, Any

import click

from manta.console.commands import as_json_option, say
from manta.console.terminal import confirm, print_lines
from manta.node.cli.config import DEFAULT, NAME
from manta.node.daemon.places import must_be_known, names, state_folder
from manta.node.errors import OperatorError, UnknownName

if TYPE_CHECKING:
    from manta.node.policy.consent import Asked, Consent, Subject
    from manta.node.policy.records import OwnerRecords

_ID = re.compile("[0-9a-f]{16}")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
REQUEST = click.argument("request", required=False, metavar="[REQUEST]")


@click.command()
@NAME
@REQUEST
@click.option("--once", is_flag=True, help="Only the swarms that ask now, not later ones.")
@click.option("--until", metavar="DATE", help="As 2026-12-04, 2026-12-04T12:00, friday or 7d.")
@click.option("--digest", is_flag=True, help="The same code for whoever the policy lets ask.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def approve(
    name: str,
    request: str | None,
    once: bool,
    until: str | None,
    digest: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List what waits for the owner; with REQUEST, show it, and approve it.

    What is approved is this code, by its digest, of this person, with these datasets. Other code is
    asked for again. With --json and without --yes, REQUEST is shown and not approved.
    """
    from manta.console import json_form
    from manta.node.policy.consent import Consent

    name, request = _meant(name, request)
    records = _records(name)
    if request is None:
        _list(records, name, as_json=as_json)
        return
    asked = _asked(records, name, request)
    if once and digest:
        raise click.UsageError("--once is for those who ask now: leave out --digest.")
    over = None if until is None else _until(until, time.time())
    shown = _shown(records, asked)
    if as_json and not yes:
        json_form.show(shown)
        return
    if not as_json:
        print_lines(*_lines(shown, asked))
        if not yes:
            confirm("Approve it?", abort=True)
    consent = Consent(
        asked.subject,
        allows=True,
        at=time.time(),
        by=getpass.getuser(),
        module=asked.module,
        until=over,
        once=asked.nonces if once else None,
        anyone=digest,
    )
    _decide(records, name, consent, "approved")
    how = f" until {_moment(over)}" if over is not None else ", once" if once else ""
    sentence = f"Approved {request}: {asked.module} of {_people(consent)}{how}."
    say(_record(consent), sentence, as_json=as_json)


@click.command()
@NAME
@REQUEST
@as_json_option
def deny(name: str, request: str | None, as_json: bool) -> None:
    """Deny REQUEST, now and whenever it is asked for again; `approve` lists the requests."""
    from manta.node.policy.consent import Consent

    name, request = _meant(name, request)
    if request is None:
        raise click.UsageError(f"Name a request: `manta_node approve {name}` lists them.")
    records = _records(name)
    asked = _asked(records, name, request)
    consent = Consent(
        asked.subject, allows=False, at=time.time(), by=getpass.getuser(), module=asked.module
    )
    _decide(records, name, consent, "denied")
    sentence = f"Denied {request}: {asked.module} of {asked.subject.user}."
    say(_record(consent), sentence, as_json=as_json)


@click.command()
@NAME
@REQUEST
@as_json_option
def revoke(name: str, request: str | None, as_json: bool) -> None:
    """List what the owner has said; with REQUEST, take an approval back.

    What runs by it ends within a second, and it is denied from now on.
    """
    import msgspec

    from manta.console import json_form, text

    name, request = _meant(name, request)
    records = _records(name)
    consents = records.decided().consents
    if request is None:
        if as_json:
            json_form.show([_record(one) for one in consents])
        elif consents:
            print_lines(*text.table(_SAID, [_said(one) for one in consents]))
        else:
            print_lines("The owner has approved and denied nothing yet.")
        return
    found = [one for one in consents if one.id == request]
    if not found:
        raise UnknownName(f"Nothing was said of {request}: `manta_node revoke {name}` lists it.")
    consent = msgspec.structs.replace(
        found[-1], allows=False, at=time.time(), by=getpass.getuser(), until=None, once=None
    )
    _decide(records, name, consent, "revoked")
    sentence = f"Revoked {request}: {consent.module} of {_people(consent)} is denied from now on."
    say(_record(consent), sentence, as_json=as_json)


def _meant(name: str, request: str | None) -> tuple[str, str | None]:
    """A request alone is one of the node `default`. Raises UnknownName."""
    if request is None and _ID.fullmatch(name) and name not in names():
        name, request = DEFAULT, name
    must_be_known(name)
    return name, request


def _records(name: str) -> OwnerRecords:
    from manta.node.policy.records import OwnerRecords

    return OwnerRecords(state_folder(name).owner)


def _asked(records: OwnerRecords, name: str, request: str) -> Asked:
    from manta.node.policy.consent import Asked

    found = records.asked().asked.get(request)
    if found is None:  # it was decided on before
        for one in records.decided().consents:
            if one.id == request:
                why = "the owner has approved it" if one.allows else "the owner has denied it"
                found = Asked(one.subject, one.at, one.at, why, module=one.module)
    if found is None:
        raise UnknownName(
            f"There is no request {request}: `manta_node approve {name}` lists those that wait."
        )
    return found


def _decide(records: OwnerRecords, name: str, consent: Consent, act: str) -> None:
    """Recorded first: what the owner has said is in the log whatever becomes of it."""
    from manta.audit.keys import SealKey
    from manta.audit.log import AuditLog
    from manta.audit.records import Record
    from manta.node.policy.consent import replaced
    from manta.node.state.audit import KEPT, SEGMENT

    folder = state_folder(name)
    subject = consent.subject
    about: dict[str, Any] = {
        "request": consent.id,
        "by": consent.by,
        "module": consent.module,
        "digest": subject.digest,
        "image": subject.image,
        "datasets": list(subject.datasets),
        "requirements": list(subject.requirements) or None,
        "outbound": list(subject.outbound) or None,
        "key": subject.key,
        "until": consent.until,
        "once": consent.once is not None or None,
        "anyone": consent.anyone or None,
    }
    kept = {key: value for key, value in about.items() if value is not None}
    log = AuditLog(folder.audit, SealKey(folder.key().secret.encode()), segment=SEGMENT, kept=KEPT)
    try:
        log.record(Record(consent.at, act, subject.user, about=kept))
    finally:
        log.close()
    records.decide(lambda consents: replaced(consents, consent))


# --- what is shown ------------------------------------------------------------------------------

_ASKED = ("REQUEST", "USER", "MODULE", "DATASETS", "SWARM", "SINCE", "WAITING")
_SAID = ("REQUEST", "SAID", "USER", "MODULE", "DIGEST", "DATASETS", "AT", "HOLDS")


def _list(records: OwnerRecords, name: str, *, as_json: bool) -> None:
    from manta.console import json_form, text

    asked = records.asked().asked
    if as_json:
        json_form.show([_brief(one) for one in asked.values()])
    elif not asked:
        print_lines(f"Nothing waits for the owner of {name}.")
    else:
        now = time.time()
        rows = [
            [
                id_,
                one.subject.user,
                one.module,
                ", ".join(one.subject.datasets) or "none",
                f"{one.swarm} ({one.swarm_id})",
                text.seconds(max(0.0, now - one.since)),
                str(one.waiting),
            ]
            for id_, one in asked.items()
        ]
        print_lines(*text.table(_ASKED, rows))


def _about(subject: Subject, module: str) -> dict[str, Any]:
    """What is asked for, and by whom."""
    return {
        "user": subject.user,
        "key": subject.key,
        "module": module,
        "digest": subject.digest,
        "image": subject.image,
        "datasets": subject.datasets,
        "class_name": subject.class_name,
        "requirements": subject.requirements,
        "outbound": subject.outbound,
    }


def _brief(one: Asked) -> dict[str, Any]:
    return {
        "request": one.subject.id,
        **_about(one.subject, one.module),
        "swarm_id": one.swarm_id,
        "swarm": one.swarm,
        "description": one.description,
        "task": one.task,
        "why": one.why,
        "leaves": one.leaves,
        "since": one.since,
        "waiting": one.waiting,
    }


def _shown(records: OwnerRecords, asked: Asked) -> dict[str, Any]:
    """What there is to know of a request."""
    import msgspec

    from manta.node.policy import code as review

    digest = asked.subject.digest
    code = records.code(digest) if digest else None
    consents = records.decided().consents
    known = any(one.allows and one.subject.key == asked.subject.key for one in consents)
    former = _approved(records, asked)
    before = records.code(former) if former else None
    return {
        **_brief(asked),
        "key_is_known": known or asked.subject.key in _seen(records, asked.subject.user),
        "approved_before": former or None,
        "found": None if code is None else msgspec.structs.asdict(review.look(code)),
        "diff": [] if code is None else review.diff(before, code),
    }


def _seen(records: OwnerRecords, user: str) -> tuple[str, ...]:
    return records.asked().seen.get(user, ())


def _approved(records: OwnerRecords, asked: Asked) -> str:
    """The digest of that module that was approved last; "" for none."""
    found = [
        one
        for one in records.decided().consents
        if one.allows
        and one.module == asked.module
        and one.subject.digest
        and (one.anyone or one.subject.user == asked.subject.user)
    ]
    return max(found, key=lambda one: one.at).subject.digest if found else ""


def _lines(shown: dict[str, Any], asked: Asked) -> list[str]:
    from manta.console import text

    subject, found = asked.subject, shown["found"]
    new = "" if shown["key_is_known"] else "  (new: compare it with what `manta whoami` shows them)"
    since = text.seconds(max(0.0, time.time() - asked.since))
    lines = [
        f"Request {subject.id}, since {since}: {asked.why}",
        f"  who       {subject.user}{_foreign(subject.user)}",
        f"  key       {subject.key}{new}",
        f"  swarm     {asked.swarm} ({asked.swarm_id}), task {asked.task}",
        f"  purpose   {asked.description or 'the swarm does not say'}",
        f"  data      {', '.join(subject.datasets) or 'no dataset'}",
        f"  leaves    {asked.leaves}; log lines",
        f"  code      module {asked.module}, digest {subject.digest or 'none'}",
    ]
    if subject.class_name:
        lines.append(f"  runs      class {subject.class_name}")
    if subject.requirements:
        lines.append(f"  installs  {', '.join(subject.requirements)}")
    if subject.outbound:
        lines.append(f"  connects  {', '.join(subject.outbound)}")
    if subject.image:
        lines.append(f"  image     {subject.image}")
    if not subject.digest:
        return [*lines, "The image runs its own entry point: nothing of it can be shown."]
    if found is None:
        return [*lines, "The code is not here (yet): look again in a moment."]
    words = {
        "imports": "imports",
        "datasets": "reads",
        "results": "results",
        "globals": "globals",
        "metrics": "metrics",
        "tells": "tells",
        "hides": "may hide",
        "unread": "unread",
    }
    lines += [f"  {word:9} {', '.join(found[key])}" for key, word in words.items() if found[key]]
    if found["prints"]:
        lines.append("  prints    log lines")
    former = shown["approved_before"]
    title = f"since {former[:12]}, which was approved last" if former else "all of it is new"
    return [*lines, f"The code ({title}):", *shown["diff"]]


def _foreign(address: str) -> str:
    """An address with letters that may be taken for others, as it is not read wrong."""
    return "" if address.isascii() else f"  (not in plain letters: {ascii(address)[1:-1]})"


def _people(consent: Consent) -> str:
    return "whoever the policy lets ask" if consent.anyone else consent.subject.user


def _said(one: Consent) -> list[str]:
    subject = one.subject
    until = f"until {_moment(one.until)}" if one.until is not None else ""
    holds = until or ("once" if one.once is not None else "until it is revoked")
    return [
        one.id,
        "approved" if one.allows else "denied",
        "anyone" if one.anyone else subject.user,
        one.module,
        subject.digest[:12],
        ", ".join(subject.datasets) or "none",
        _moment(one.at),
        holds if one.allows else "for good",
    ]


def _record(one: Consent) -> dict[str, Any]:
    return {
        "request": one.id,
        "allows": one.allows,
        **_about(one.subject, one.module),
        "at": one.at,
        "by": one.by,
        "until": one.until,
        "once": one.once is not None,
        "anyone": one.anyone,
    }


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _until(said: str, now: float) -> float:
    """When that is over: a day with its end. Raises click.BadParameter, OperatorError."""
    from datetime import date, datetime, timedelta

    found: datetime | None = None
    today = datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0)
    word = said.lower()
    if match := re.fullmatch(r"(\d{1,4})([dh])", word):
        count, unit = int(match[1]), match[2]
        return now + count * (86400 if unit == "d" else 3600)
    if word in _DAYS:
        found = today + timedelta((_DAYS.index(word) - today.weekday()) % 7 + 1)
    else:
        try:
            day = date.fromisoformat(said)
            found = datetime(day.year, day.month, day.day) + timedelta(1)
        except ValueError:
            try:
                found = datetime.fromisoformat(said)
            except ValueError:
                raise click.BadParameter(
                    f"--until {said!r} is no date: write it as 2026-12-04, 2026-12-04T12:00, "
                    "friday or 7d."
                ) from None
    if found.timestamp() <= now:
        raise OperatorError(f"--until {said} is over already.")
    return found.timestamp()
