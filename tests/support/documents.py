"""Runs the code blocks of a page, as a reader would who follows it from the top.

The blocks of a page share a folder, a shell and a namespace. What each language means:

- `python`: run in the page's namespace; with `title="name.py"` the block is that file.
- `console`: what follows `$ ` is typed into one shell; output that is shown is compared as a whole,
  but for what varies: times, sizes, ids and the like. A block shows the output of all its commands,
  or of none. Each command ends with 0, unless `$ echo $?` comes next.
- `toml`: read as the configuration of a node. `json`: parsed, a document or a line each.
- `ini`: a unit of systemd, which verifies it where it is installed; its title is its path.
- `text`: no code.

A page begins in a copy of the sources, of which it has the examples and the Makefile. A block that
is titled as one of the examples is that file.

Comments concern the tests and are not shown, and hold no code: `<!-- terminal -->`, the block's
command runs on, in a terminal of its own; `<!-- refused -->`, the block's swarm is one that is not
valid; `<!-- not run: REASON -->`, before a block that cannot be run.

With `MANTA_TEST_ACCEPT=1` the output that a page shows is replaced by what was said, where the two
differ: see what changed with `git diff`.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manta.apis.compile.spec import compile_swarm
from manta.apis.errors import InvalidSwarm
from manta.apis.swarm import Swarm
from manta.cli.loading import load_swarm
from manta.node import config
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
LANGUAGES = {"python", "console", "toml", "json", "ini", "text"}
PATIENCE = 90.0  # seconds; of a machine that is busy
FENCE = re.compile(r"( *)```(\w*) *(?:title=\"(.*?)\")?$")
NOTE = re.compile(r"<!-- (?:(terminal|refused)|not run: (.+)) -->")
SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::(\d+):(\d*))?"$', re.MULTILINE)
ACCEPTING = "MANTA_TEST_ACCEPT"
VARIES = [
    r"\b\d{4}-\d\d-\d\d\b",  # a date
    r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?",  # a time of day
    r"\b(?:\d+ min )?\d+(?:\.\d+)? ?(?:ms|s|min|h)\b",
    r"\b\d+(?:\.\d+)? ?(?:B|[kKMG]i?B)\b",
    r"\b\d+ ?%",
    r"\b\d+\.\d+\.\d+\b(?!\.)",  # a version
    r"\bprocess \d+",
    r"\b\d+ \d+\+\d+\b",  # a process and its tasks
    r"\b\d+/\d+ \d+\b",  # tasks and cores
    r"\bnode-\d+\b",  # the one that was less busy
    r"\b(?:bwrap|landlock|limits)\b",  # what this machine can
    r"\b(?:[0-9a-f]{6}-){3}[0-9a-f]{6}\b",  # a password
    r"(?<![^\s'])[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}(?![^\s'])",  # a public key
    r"\b[0-9a-f]{8,}\b",  # an id or digest
]
"""What varies from one time to another: any of the kind is right."""
NOT_ISOLATED = "Note: Tasks run as plain processes of this user: "
"""What is said, once, where there is no bubblewrap."""
PROMPT = re.compile(r"[^\n]*[:?]( \[[^\]\n]*\])?:? $")


class Block(NamedTuple):
    page: Path
    line: int  # where its text begins, from 1
    language: str
    title: str | None
    text: str
    how: str | None = None  # terminal, refused
    reason: str | None = None  # why it is not run

    def __str__(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, hidden ones included, in order."""
    lines = list(enumerate(page.read_text().splitlines(), 1))
    note: re.Match[str] | None = None
    while lines:
        number, line = lines.pop(0)
        if (opening := FENCE.fullmatch(line)) is None:
            note = NOTE.fullmatch(line.strip()) or (None if line.strip() else note)
            assert not line.strip().startswith("```"), f"{page}:{number}: {line} is no block"
            continue
        body = []
        end = opening[1] + "```"
        while lines and lines[0][1] != end:
            body.append(lines.pop(0)[1])
        assert lines, f"{page}:{number}: the block has no end"
        lines.pop(0)
        text = SNIPPET.sub(_snippet, textwrap.dedent("\n".join(body)) + "\n")
        how, reason = (note[1], note[2]) if note else (None, None)
        yield Block(page, number + 1, opening[2], opening[3], text, how, reason)
        note = None


def _snippet(found: re.Match[str]) -> str:
    """The lines of a file, as the site shows them."""
    lines = (ROOT / found[1]).read_text().splitlines()
    return "\n".join(lines[int(found[2] or 1) - 1 : int(found[3] or len(lines))])


def run(page: Path, folder: Path) -> None:
    """Run a page's blocks, in a folder of its own that has the examples."""
    shutil.copytree(
        ROOT / "examples",
        folder / "examples",
        ignore=shutil.ignore_patterns("__pycache__", "shards"),
    )
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    found = [block for block in blocks(page) if block.reason is None]
    shell: Shell | None = None
    accepted: list[tuple[Block, str]] = []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in found:
            assert block.language in LANGUAGES, f"{block}: no language {block.language!r} is known"
            if block.language == "console":
                shell = shell or Shell(folder)
                said = shell.follow(block)
                if os.environ.get(ACCEPTING) and said != block.text:
                    accepted.append((block, said))
            elif block.language == "ini":
                _verify_unit(block, folder)
            elif block.title is not None:
                _write(block, folder, found)
            elif block.language == "python":
                code = "\n" * (block.line - 1) + block.text
                exec(compile(code, str(page), "exec"), namespace)
            elif block.language == "toml":
                path = folder / "node.toml"
                path.write_text(block.text)
                config.load(path)
            elif block.language == "json":
                _parse(block)
        _compile_swarms(found, folder, namespace)
    finally:
        _accept(page, accepted)
        if shell is not None:
            shell.close()


def _accept(page: Path, accepted: list[tuple[Block, str]]) -> None:
    """Shows in the page what was said."""
    lines = page.read_text().splitlines()
    for block, text in reversed(accepted):
        first = block.line - 1
        end = first + block.text.count("\n")
        lines[first:end] = text.splitlines()
    page.write_text("\n".join(lines) + "\n")


def _write(block: Block, folder: Path, found: list[Block]) -> None:
    assert block.title
    if block.title.startswith("examples/"):
        example = (ROOT / block.title).read_text()
        assert block.text.strip() in example, f"{block} is not {block.title}"
        return
    used = any(Path(block.title).name in each.text for each in found if each is not block)
    assert used, f"{block}: nothing uses {block.title}"
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text)
    if block.language == "python":
        compile(block.text, str(block), "exec")


def _verify_unit(block: Block, folder: Path) -> None:
    assert block.title
    unit = folder / Path(block.title).name
    here = f"ExecStart={Path(sys.executable).parent}/"
    unit.write_text(re.sub(r"ExecStart=\S*/", here, block.text))
    assert here in unit.read_text()
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"{block}: {done.stderr}"


def _parse(block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("manta.")


def _compile_swarms(found: list[Block], folder: Path, namespace: dict[str, Any]) -> None:
    """Every swarm that a page defines passes the real compiler, or does not if it says so."""
    for block in found:
        if block.title and "(Swarm)" in block.text:
            with pytest.raises(InvalidSwarm) if block.how == "refused" else nullcontext():
                compile_swarm(load_swarm(str(folder / block.title), {}))
    for value in namespace.values():
        if isinstance(value, type) and issubclass(value, Swarm) and not _is_ours(value):
            compile_swarm(value())


class Shell:
    """One bash, at a terminal, with a home and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home" / ".manta"
        self.nodes, self.users, self.bulk = free_ports()
        self.password = ""
        self.terminals: list[subprocess.Popen[bytes]] = []
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
        self.environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home.parent),
            "MANTA_PORT": str(self.users),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.home.parent.mkdir()
        self.master, self.slave = os.openpty()
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=self.environment,
            start_new_session=True,
        )
        self.events = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.events.register(self.process.stdout, selectors.EVENT_READ)
        self.events.register(self.master, selectors.EVENT_READ)
        self.ask(f"exec 9<>{os.ttyname(self.slave)}")  # the first terminal that it opens is its own
        self.ask(self._ports())

    def _ports(self) -> str:
        """The pages say the usual ports, which may be taken here."""
        ports = f"--node-port {self.nodes} --user-port {self.users} --bulk-port {self.bulk}"
        return (
            'manta() { case "$1 $2" in "manager start") '
            f'set -- "$@" --host 127.0.0.1 {ports};; esac; command manta "$@"; }}\n'
            'make() { command make --no-print-directory -o .venv/.demo -o .venv/.tools "$@"; }'
        )

    def follow(self, block: Block) -> str:
        """Types a block's commands; returns the block as it would be with what they said."""
        commands = _commands(block)
        all_shown = any(shown.strip() for _, shown in commands)
        lines = []
        for place, (command, shown) in enumerate(commands):
            lines.append("$ " + command.replace("\n", "\n> ") + "\n")
            if _is_special(command, block):
                lines.append(shown)
                continue
            if block.how == "terminal":
                self.in_terminal(command, block, shown)
                lines.append(shown)
                continue
            code, said = self.ask(command)
            following = commands[place + 1][0] if place + 1 < len(commands) else ""
            where = f"{block}: $ {command}\n{said}"
            assert code == 0 or following == "echo $?", f"{where}\nended with {code}"
            if all_shown:
                said = "".join(f"{line.rstrip()}\n" for line in self.usual(said).splitlines())
                right = matches(shown, said)
                assert right or os.environ.get(ACCEPTING), f"{where}\nThe page shows:\n{shown}"
                lines.append(shown if right else said)
        return "".join(lines)

    def usual(self, said: str) -> str:
        """With the ports, addresses and folders that pages speak of."""
        mine = (self.nodes, self.users, self.bulk)
        for port, known in zip(mine, range(50051, 50054), strict=True):
            said = said.replace(str(port), str(known))
        said = said.replace("tcp://127.0.0.1", "tcp://0.0.0.0")
        said = said.replace("--host 127.0.0.1", "--host localhost")
        for folder, usual in ((self.home.parent, "/home/you"), (self.folder, "/home/you/manta")):
            said = said.replace(str(folder), usual)
        return said

    def in_terminal(self, command: str, block: Block, shown: str) -> None:
        """Runs on until the page ends; what is shown must come."""
        path = self.folder / f"terminal-{len(self.terminals)}"
        exported = self.ask("export -p")[1]
        script = f"{exported}\n{self._ports()}\n{command}\n"
        with open(path, "wb") as output:
            self.terminals.append(
                subprocess.Popen(
                    ["bash", "--noprofile", "--norc", "-c", script],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=self.environment,
                    start_new_session=True,
                )
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            said = path.read_text()
            self.hear(said)
            if said.strip() if not shown.strip() else begins(shown, self.usual(said)):
                return
            ended = self.terminals[-1].poll()
            assert ended is None, f"{block}: $ {command} ended with {ended}\n{said}"
            assert time.monotonic() < deadline, f"{block}: $ {command}\n{said}"
            time.sleep(0.05)

    def ask(self, command: str) -> tuple[int, str]:
        """A command's exit code and what it said, on both streams and the terminal. Prompts are
        answered: for a password with the manager's first, for all else with Enter."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = "printf '\\1%d\\n' $last\n"
        line = f"(exit ${{last:-0}}); {{ {command}\n}} </dev/tty; last=$?; {told}"
        if command.startswith("exec"):  # before there is a terminal
            line = f"{command}; last=$?; {told}"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        said, prompted = b"", b""
        deadline = time.monotonic() + PATIENCE
        while True:
            events = self.events.select(0.2)
            for key, _ in events:
                data = os.read(key.fd, 65536)
                if key.fd == self.master:
                    prompted += data
                else:
                    assert data, f"the shell ended: {said.decode()}"
                    said += data
            if end := re.search(rb"\x01(\d+)\n$", said):
                text = said[: end.start()].decode(errors="replace")
                self.hear(text)
                return int(end[1]), re.sub(r"\x1b\[[0-9;]*m", "", text)
            answer = self.password if b"assword" in prompted else ""
            if answer or (
                not events
                and any(PROMPT.search(text.decode(errors="replace")) for text in (prompted, said))
            ):
                os.write(self.master, f"{answer}\n".encode())
                said += prompted.strip() + b"\n"  # Enter
                prompted = b""
            assert time.monotonic() < deadline, f"$ {command}\n{said.decode()}\ndoes not end"

    def hear(self, said: str) -> None:
        """A manager's first start says the first user's password, once."""
        if found := re.search(r"the password\s+(\S+)", said):
            self.password = found[1]

    def close(self) -> None:
        """Stop all that the page started."""
        for terminal in reversed(self.terminals):
            if terminal.poll() is None:
                os.killpg(terminal.pid, signal.SIGINT)
            terminal.wait(timeout=60)
        for file in sorted((self.home / "nodes").glob("*.toml")):
            self._stop("manta_node", "stop", file.stem)
        self._stop("manta_node", "cluster", "stop")
        self._stop("manta", "manager", "stop")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.events.close()
        os.close(self.master)
        os.close(self.slave)

    def _stop(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, capture_output=True, check=False, timeout=60)


def _commands(block: Block) -> list[tuple[str, str]]:
    """Each command with the output that is shown for it; `> ` goes on with a command."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        else:
            assert not line.strip(), f"{block}: a console block begins with `$ `"
    assert found, f"{block}: no command"
    return found


def _is_special(command: str, block: Block) -> bool:
    """What can't be run inside of itself is checked as far as it can be."""
    if command.startswith("make "):
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert command.split()[1] in targets, f"{block}: the Makefile has no {command}"
        return command != "make demo"
    if command.startswith("pip install "):
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        for extras in re.findall(r"\[([\w,]+)\]", command):
            for extra in extras.split(","):
                assert extra in setup["options.extras_require"], f"{block}: no extra {extra}"
        return True
    return command == "python3 -m venv .venv"


def matches(shown: str, said: str) -> bool:
    """Whether a page shows what was said: what varies stands for any, blanks for blanks."""
    return re.fullmatch(_pattern(shown), _plain(said)) is not None


def begins(shown: str, said: str) -> bool:
    """The same, if more may follow."""
    return re.match(_pattern(shown), _plain(said)) is not None


def _pattern(shown: str) -> str:
    return "".join(_any_of_its_kind(line, VARIES) + r"\n" for line in _plain(shown).splitlines())


def _plain(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.strip().splitlines())
    return "\n".join(line for line in lines if not line.startswith(NOT_ISOLATED)) + "\n"


def _any_of_its_kind(line: str, kinds: list[str]) -> str:
    """A pattern of the line in which what varies stands for all that varies so."""
    if not kinds:
        return re.escape(line)
    kind, *others = kinds
    return kind.join(_any_of_its_kind(piece, others) for piece in re.split(kind, line))
