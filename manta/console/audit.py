"""`audit verify` and `audit export`, as both commands have them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manta.console import text
from manta.console.commands import as_json_option, say
from manta.console.exit_codes import Exit
from manta.console.lines import Words
from manta.console.terminal import print_lines, say_note
from manta.console.visible import visible

if TYPE_CHECKING:
    from manta.audit.records import Record
    from manta.audit.verify import Anchor, Verdict

COLUMNS = ("number", "at", "act", "who", "outcome", "about")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_HEAD = re.compile(r"([1-9][0-9]*):([0-9a-f]{64})")


def _moment(value: str) -> float:
    """A date, or a date and time, of this machine's time zone unless it names one."""
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no time: write 2026-11-30, or 2026-11-30T14:00."
        ) from None


def _key(value: str) -> str:
    from manta.audit.keys import is_public

    if not is_public(value):
        raise click.BadParameter(f"{value!r} is no key: copy its 64 digits whole.")
    return value


def _head(value: str) -> tuple[int, str]:
    if (found := _HEAD.fullmatch(value)) is None:
        raise click.BadParameter(f"{value!r} is no head: copy it whole from what `verify` said.")
    return int(found[1]), found[2]


def verify_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--folder",
            type=click.Path(path_type=Path),
            help="A copy of the log; then --key names its key.",
        ),
        click.option(
            "--key",
            "keys",
            type=_key,
            multiple=True,
            metavar="KEY",
            help="A public key that sealed the log before, or seals the copy now: the last one.",
        ),
        click.option(
            "--head",
            "heads",
            type=_head,
            multiple=True,
            metavar="NUMBER:DIGEST",
            help="A head that `verify` said before: nothing up to it may have changed.",
        ),
        click.option(
            "--anchors",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="What `audit export` printed of a log that keeps heads of this one.",
        ),
        as_json_option,
    ):
        command = option(command)
    return command


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--since", type=_moment, metavar="TIME", help="Only records from this time on."
        ),
        click.option(
            "--until", type=_moment, metavar="TIME", help="Only records before this time."
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(["jsonl", "csv"]),
            default="jsonl",
            show_default=True,
            help="One JSON object a line, or a table.",
        ),
        click.option("--json", "as_json", is_flag=True, help="As --format jsonl."),
    ):
        command = option(command)
    return command


def public_key(secret: bytes) -> str:
    """The key that checks the seals of the log of a process with this secret."""
    from manta.audit.keys import SealKey

    return SealKey(secret).public


def verify_copy(
    folder: Path,
    keys: tuple[str, ...],
    heads: tuple[tuple[int, str], ...],
    anchors: Path | None,
    *,
    as_json: bool,
) -> Exit:
    """Raises OSError, click.ClickException."""
    if not keys:
        raise click.UsageError(
            "--folder goes with --key: the public key that seals the log, as `audit verify` says "
            "it where the log is written."
        )
    return verify(folder, keys[-1], keys[:-1], heads, anchors, as_json=as_json)


def verify(
    folder: Path,
    public: str,
    keys: tuple[str, ...],
    heads: tuple[tuple[int, str], ...],
    anchors: Path | None,
    *,
    as_json: bool,
) -> Exit:
    """`public` is the key that seals the log now. Raises OSError, click.ClickException."""
    from manta.audit import verify as audits
    from manta.audit.records import Head

    kept: list[Anchor] = [audits.Anchor(Head(*head), "whoever kept it") for head in heads]
    if anchors is not None:
        kept += _exported(anchors, {public, *keys})
    verdict = audits.verify(folder, public, keys, kept)
    record = {
        "folder": verdict.folder,
        "intact": not verdict.flaws,
        "key": verdict.key,
        "first": verdict.first,
        "records": verdict.records,
        "head": f"{verdict.head.number}:{verdict.head.digest}",
        "intact_up_to": verdict.intact,
        "anchors": verdict.anchors,
        "faults": [flaw._asdict() for flaw in verdict.flaws],
        "notes": verdict.notes,
    }
    say(record, _sentences(verdict, len(kept)), as_json=as_json)
    return Exit.LOCAL if verdict.flaws else Exit.OK


def _exported(file: Path, keys: set[str]) -> list[Anchor]:
    from manta.audit.anchors import exported

    try:
        found = [anchor for key, anchor in exported(file) if key in keys]
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{error}.", param_hint="--anchors") from None
    if not found:
        say_note(f"{file} keeps no head of this log.")
    return found


def _sentences(verdict: Verdict, anchors: int) -> list[Words]:
    lines: list[Words] = []
    if verdict.flaws:
        for flaw in verdict.flaws:
            lines.append(f"{flaw.file}, record {flaw.number}: {flaw.what}: {flaw.sentence}.")
        before = f"All records up to {verdict.intact} are" if verdict.intact else "No record is"
        lines.append(f"{before} shown to be as they were written.")
    else:
        records = text.count(verdict.records, "record")
        lines.append(f"{verdict.folder} is intact: {records}, from {verdict.first} on.")
    lines += verdict.notes
    if anchors:
        lines.append(f"Heads kept elsewhere that are in it: {verdict.anchors} of {anchors}.")
    lines.append(f"key   {verdict.key}")
    if verdict.head.number:
        lines.append(f"head  {verdict.head.number}:{verdict.head.digest}")
    return lines


def export(
    folder: Path, since: float | None, until: float | None, form: str, *, as_json: bool
) -> None:
    """Prints the records. Raises OSError, click.ClickException."""
    from manta.audit.verify import read
    from manta.console import json_form

    if as_json and form == "csv":
        raise click.UsageError("--json goes with --format jsonl.")
    rows = (_row(number, one) for number, one in read(folder) if _is_between(one.at, since, until))
    if form == "csv":
        _print_csv(rows)
        return
    for row in rows:
        json_form.show_line(row)


def _is_between(at: float, since: float | None, until: float | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def _row(number: int, record: Record) -> dict[str, Any]:
    values = (number, record.at, record.act, record.who, record.outcome, record.about)
    return dict(zip(COLUMNS, values, strict=True))


def _print_csv(rows: Iterator[dict[str, Any]]) -> None:
    from manta.console import json_form

    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    print_lines(",".join(COLUMNS))
    for row in rows:
        at = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="milliseconds")
        cells = {**row, "at": at, "about": json_form.dumps(row["about"])}
        writer.writerow([_harmless(visible(str(cell))) for cell in cells.values()])
        print_lines(*line.getvalue().splitlines())
        line.seek(0)
        line.truncate()


def _harmless(cell: str) -> str:
    """No program for tables takes it for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def no_log(folder: Path) -> str:
    return f"There is no audit log in {folder} yet: it begins at the first start."
