"""Click as both commands use it, and how they run and exit."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from manta.console import extras
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.console.lines import Words
from manta.console.terminal import print_lines, say_error


class ReaderGone(Exception):
    """The reader of the output has gone, as in `manta ps | head`."""


_UNCUT = 1000  # characters


class Group(click.Group):
    """Commands; for one that does not exist, suggests the one that was probably meant."""

    group_class = type

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError as error:  # from --help; click itself would exit with 1
            raise ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Fold long lines, which click itself would cut."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_UNCUT))
                    for name, command in commands
                    if command
                ]
            )

    def elsewhere(self, words: list[str]) -> str | None:
        """Returns what to say to words that are no command of this group but one elsewhere."""
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            if (answer := self.elsewhere(args)) is not None:
                ctx.fail(answer)
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1)
            hint = (
                f"Did you mean {near[0]!r}?" if near else f"`{ctx.command_path} --help` lists them."
            )
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)


def check_utf8(text: str, where: str, remedy: str) -> None:
    """Raises click.BadParameter for bytes that are no text, as a command line may have them."""
    if not _is_utf8(text):
        raise click.BadParameter(f"{text!r} is not UTF-8: {remedy}.", param_hint=where)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def say(record: Any, said: Words | Sequence[Words], *, as_json: bool) -> None:
    """What was done: a sentence, or several lines, or what it was done to as JSON."""
    if as_json:
        from manta.console import json_form

        json_form.show(record)
    else:
        print_lines(*([said] if isinstance(said, Words) else said))


def show_example(command: click.Command, example: str) -> None:
    """Add an example at the end of a command's help."""
    command.epilog = f"\b\nExample:\n  {example}"


def run(
    cli: click.Command, arguments: list[str] | None, name: str, tell: Callable[[Exception], Exit]
) -> NoReturn:
    """Run a command and exit; a user never sees a traceback of Manta's own code.

    `tell` shows what an error means, and returns the exit code.
    """
    try:
        with Interrupts() as interrupts:
            code = _outcome(cli, arguments, name, tell, interrupts)
    except click.exceptions.Exit as exit_:  # by a signal, while something was being shown
        code = exit_.exit_code
    except Interrupted as interrupted:
        code = interrupted.exit
    sys.exit(code)


def _outcome(
    cli: click.Command,
    arguments: list[str] | None,
    name: str,
    tell: Callable[[Exception], Exit],
    interrupts: Interrupts,
) -> int:
    code: int = Exit.OK
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a `?` rather than an error
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if any(variable.endswith("_COMPLETE") for variable in os.environ):
        from manta.console import completion  # noqa: F401, has the shells that click asks for
    try:
        interrupts.begin()
        try:
            result = cli.main(arguments, prog_name=name, standalone_mode=False)
        except Exception:
            interrupts.check_again()
            raise
        code = result if isinstance(result, int) else Exit.OK
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        _say_how_to_use(error)
        say_error(error.format_message())
        code = error.exit_code
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            print_lines("", err=True)  # ends the line of the question
            say_error("The input ended before it was answered: see --help for the option.")
            code = Exit.USAGE
        else:
            print_lines("Nothing was done.", err=True)
            code = Exit.INTERRUPTED
    except Interrupted as interrupted:
        interrupts.finish()
        interrupted.tell()
        code = interrupted.exit
    except KeyboardInterrupt:  # raised by the user's code
        print_lines("Interrupted.", err=True)
        code = Exit.INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        _discard_output()
    except OSError as error:
        if (sentence := _machine_fault(error)) is not None:
            say_error(sentence)
            code = Exit.LOCAL
            _discard_output()
        else:
            code = tell(error)
    except ModuleNotFoundError as error:
        if (sentence := extras.remedy(error.name)) is not None:
            say_error(sentence)
            code = Exit.LOCAL
        else:
            code = tell(error)
    except UnicodeEncodeError as error:
        if (sentence := _no_text(error)) is not None:
            say_error(sentence)
            code = Exit.USAGE
        else:
            code = tell(error)
    except Exception as error:
        code = tell(error)
    return code


def _say_how_to_use(error: click.ClickException) -> None:
    """What click itself says above a sentence about wrong arguments."""
    if isinstance(error, click.UsageError) and (ctx := error.ctx) is not None:
        names = ctx.command.get_help_option_names(ctx)
        hint = [f"Try '{ctx.command_path} {max(names, key=len)}' for help."] if names else []
        print_lines(*ctx.get_usage().split("\n"), *hint, "", err=True)


def _no_text(error: UnicodeEncodeError) -> str | None:
    """A sentence about what was given to this command and is not UTF-8, else None."""
    if error.reason != "surrogates not allowed":
        return None
    given = [("The argument", text) for text in sys.argv[1:]]
    given += [(f"The variable {name}", text) for name, text in os.environ.items()]
    for what, text in given:
        if not _is_utf8(text):
            return f"{what} is {text!r}, which is not UTF-8: write it in UTF-8, or rename the file."
    return None


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_FOLDER = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
}  # fmt: skip


def _machine_fault(error: OSError) -> str | None:
    """A sentence for an error of this machine's folders and disks, else None."""
    if error.filename is not None and error.errno in _FOLDER | _DISK:
        return f"{error.filename} cannot be read or written: {error.strerror}."
    if error.errno == errno.ENOENT and error.filename is None and not _has_working_folder():
        return "The working folder was removed: change to another (cd) and repeat the command."
    if error.errno in _DISK:
        return f"What is printed cannot be written: {error.strerror}."
    return None


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _open_closed_streams() -> None:
    """Open the standard streams that were closed (`>&-`), whose numbers other files would get."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _discard_output() -> None:
    """Drop what can no longer be written, of which Python would complain at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
