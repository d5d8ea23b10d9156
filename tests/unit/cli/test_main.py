from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from manta.apis import errors
from manta.apis.errors import Incomplete, NotSealed
from manta.cli import main as main_module
from manta.cli.exit_codes import of_error, of_status
from manta.cli.main import COMMANDS, cli, main
from manta.cli.options import NAMES, connects
from manta.console.exit_codes import MEANING, Exit

ROOT = Path(__file__).parents[3]


def test_exit_codes_are_as_documented() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "exit-codes.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| code")
    ]
    assert rows == [[str(code.value), code.name, MEANING[code]] for code in Exit]


def test_every_error_has_an_exit_code() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MantaError)
    ]
    own = {errors.MantaError, errors.ApiClosed}
    assert {kind for kind in kinds if of_error(kind("x")) is Exit.INTERNAL} == own
    assert of_error(errors.Unplaceable("x")) is Exit.UNPLACEABLE
    assert of_error(errors.TokenRefused("x")) is Exit.DENIED
    assert of_error(errors.NotFound("x")) is Exit.NOT_FOUND
    assert of_error(errors.WrongState("x")) is Exit.REFUSED


def test_exit_code_by_outcome() -> None:
    states = ("COMPLETED", "FAILED", "STOPPED", "ACTIVE")
    assert [of_status(state) for state in states] == [0, 1, 3, 0]


def test_help_lists_all_commands_and_imports_none() -> None:
    code = (
        "import sys\nfrom manta.cli.main import main\n"
        "try: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    loaded = set(done.stderr.split())
    assert not loaded & {"zmq", "msgspec", "pykka", "asyncio", "subprocess", "manta.apis"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str) -> None:
    found = CliRunner().invoke(cli, [name, "--help"])
    assert found.exit_code == 0, found.output
    assert "Example:\n    " in found.output
    assert "Usage: cli " + name in found.output


def commands(group: click.Group, path: str = "manta") -> Iterator[tuple[str, click.Command]]:
    """All, with those below them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def test_every_command_argument_and_option_is_explained() -> None:
    for path, command in commands(cli):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts[0]}"
            else:
                named = re.findall("[A-Z]+", parameter.metavar or str(parameter.name).upper())
                for name in named:
                    assert name in command.help, f"{path}: its argument {name}"


def test_the_list_of_commands_is_whole_at_80_columns() -> None:
    for path, group in [("manta", cli), *commands(cli)]:
        if isinstance(group, click.Group):
            shown = CliRunner().invoke(cli, [*path.split()[1:], "--help"], terminal_width=80).output
            listed = shown.partition("Commands:\n")[2].partition("\n\n")[0]
            assert listed
            assert "..." not in listed, path
            assert max(map(len, shown.splitlines())) <= 80, path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(list(arguments))
    assert isinstance(exited.value.code, int)
    return exited.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("manta ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("ps", "--nonsense"), "No such option"),
        (("cluster", "lst"), "No such command 'lst'. Did you mean 'list'?"),
        (("run",), "Missing argument 'FILE[:CLASS]'"),
        (("run", "x.py", "--nodes", "0"), "--nodes"),
        (("run", "x.py", "--dataset", "digits"), "'digits' is not NAME=PATH"),
        (("run", "x.py", "--dataset", "d=a", "--dataset", "d=b"), "d is given twice"),
        (("deploy", "x.py"), "Missing option '--cluster'"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == Exit.USAGE
    assert message in capsys.readouterr().err


NAMING = [
    (path, str(parameter.name))
    for path, command in commands(cli)
    if {"host", "profile"} <= {parameter.name for parameter in command.params}
    for parameter in command.params
    if parameter.name in NAMES and path not in ("manta sign-in", "manta token use")
]


@pytest.mark.parametrize("given", ["", "  ", "a\nb"])
@pytest.mark.parametrize(("path", "name"), NAMING)
def test_a_name_that_can_be_nobodys_is_wrong_usage(path: str, name: str, given: str) -> None:
    command = dict(commands(cli))[path]
    words = path.split()[1:]
    for parameter in command.params:
        value = given if parameter.name == name else "x"
        if isinstance(parameter, click.Argument) and (parameter.required or value != "x"):
            words.append(value)
        elif parameter.required or value != "x":
            words += [parameter.opts[0], value]
    if "yes" in {parameter.name for parameter in command.params}:
        words.append("--yes")
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == Exit.USAGE, done.output
    assert f"is {given!r}: give" in done.output


def broken(error: BaseException) -> object:
    def command(*_: object, **__: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.ModuleError("No such file."), Exit.INVALID_SWARM, "Error: No such file.\n"),
        (errors.ManagerUnreachable("Nobody."), Exit.UNREACHABLE, "Error: Nobody.\n"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "Interrupted.\n"),
    ],
)
def test_errors_are_one_sentence(
    error: BaseException,
    code: Exit,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main_module.cli, "main", broken(error))
    assert run("ps") == code
    assert capsys.readouterr().err == message


def test_a_fault_of_our_own_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(main_module.cli, "main", broken(ZeroDivisionError("oops")))
    assert run("ps") == Exit.INTERNAL
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "ZeroDivisionError: oops" in said
    (report,) = tmp_path.iterdir()
    assert str(report) in said
    assert "Traceback" in report.read_text()


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m manta --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("category", [Incomplete, NotSealed])
def test_what_is_not_complete_or_not_sealed_is_noted_by_every_command_that_connects(
    capsys: pytest.CaptureFixture[str], category: type[Warning]
) -> None:
    @click.command()
    @connects
    def read(connect: object, as_json: bool) -> None:
        warnings.warn(category("It is not complete yet."), stacklevel=1)

    read.main([], standalone_mode=False)
    assert capsys.readouterr().err == "Note: It is not complete yet.\n"
