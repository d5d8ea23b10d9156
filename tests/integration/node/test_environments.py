"""What modules require is installed by real installers, from indexes that the tests make."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partialmethod
from pathlib import Path

import pytest

from manta.light.runtime.processes import kill_tree, marked
from manta.node.environments import Environments, Policy, building, environments
from manta.node.environments.folders import Entry, size_of
from manta.node.errors import LaunchError, RequirementsError, StorageError
from manta.node.isolation.holding import Holder
from manta.node.isolation.limits import Limits, Means
from manta.node.runners import selection
from manta.protocol.isolation import BWRAP, LANDLOCK, LIMITS
from manta.protocol.requirements import digest_of
from manta.testing import wait_until
from tests.support.modes import unreadable
from tests.support.wheels import sdist, served, sha256, wheel

Made = Callable[..., Environments]
SAYS = "def say():\n    print('hello from', __file__)"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    wheel(folder, "greeting", requires=["letters>=1"], code=SAYS)
    wheel(folder, "letters", "1.5")
    return folder


@pytest.fixture
def holder() -> Iterator[Holder]:
    holder = Holder(f"test-{secrets.token_hex(4)}")
    yield holder
    holder.close()


@pytest.fixture
def made(tmp_path: Path, index: Path, holder: Holder) -> Iterator[Made]:
    all_made: list[Environments] = []

    def make(private: tuple[Path, ...] = (), **policy: object) -> Environments:
        allowed = Policy(**{"index": str(index), **policy})  # type: ignore[arg-type]
        all_made.append(Environments(tmp_path / "made", allowed, private, "node-1", holder))
        return all_made[-1]

    yield make
    for one in all_made:
        one.close()


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pip":
        monkeypatch.setattr(environments, "_uv", lambda: None)
    else:
        assert environments._uv() is not None, "uv belongs to the extra dev"
    return str(request.param)


@pytest.fixture(params=[LIMITS, LANDLOCK, BWRAP])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    wanted = () if request.param == LIMITS else (request.param,)
    real = selection.local
    monkeypatch.setattr(selection, "local", lambda private: real(private, wanted))
    assert selection.local(()).level == request.param
    return str(request.param)


def prepared(these: Environments, *lines: str, user: str = "task") -> Path:
    folder = these.prepare("code", lines, user, lambda _: None).result(120)
    assert folder is not None
    return folder


def refused(these: Environments, *lines: str) -> str:
    with pytest.raises(RequirementsError) as caught:
        prepared(these, *lines)
    assert not list(these._folders.path.glob(".draft-*"))
    return str(caught.value)


def said(folder: Path, code: str) -> str:
    command = [str(folder / "bin" / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_is_required_is_there_with_what_it_needs_and_what_the_node_has(
    made: Made, installer: str, level: str
) -> None:
    folder = prepared(made(), "greeting")
    code = "import greeting, letters, msgpack; print(greeting.__file__, letters.VERSION)"
    where, version = said(folder, code).split()
    assert where.startswith(str(folder))
    assert version == "1.5"
    command = subprocess.run(
        [folder / "bin" / "greeting-say"], capture_output=True, text=True, check=True
    )
    assert str(folder) in command.stdout
    assert not (folder / ".build").exists()


def test_an_index_is_reached_over_the_network(
    made: Made, index: Path, installer: str, level: str
) -> None:
    with served(index) as url:
        assert (prepared(made(index=url), "letters") / "bin" / "letters-say").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["nothing-of-that-name"], "nothing-of-that-name"),
        (["greeting", "letters<1"], "letters<1"),
        (["msgpack<1"], "msgpack>=1.2.1"),
    ],
)
def test_what_does_not_resolve_is_told_with_the_installer_s_last_lines(
    made: Made, installer: str, lines: list[str], words: str
) -> None:
    sentence = refused(made(), *lines)
    assert "The requirements of module 'code' on node 'node-1' can't be installed" in sentence
    assert words in sentence
    assert "Module(requirements=...)" in sentence
    assert len(sentence) < 6_000
    assert sentence.isprintable()


def test_wheels_for_another_python_or_machine_are_told_as_such(
    made: Made, index: Path, installer: str
) -> None:
    wheel(index, "foreign", tag="cp39-cp39-linux_aarch64")
    sentence = refused(made(), "foreign")
    assert "There are wheels for another Python or machine" in sentence
    assert "this node has Python 3" in sentence


def test_no_code_runs_at_an_installation_unless_the_owner_says_so(
    made: Made, index: Path, installer: str, tmp_path: Path
) -> None:
    sdist(index, "sourced", code="import os; print('it ran', flush=True); os._exit(3)")
    sentence = refused(made(), "sourced")
    assert "it ran" not in sentence
    assert "requirements.sdists = true" in sentence, sentence


def test_what_a_build_runs_sees_nothing_of_the_node(
    made: Made, index: Path, installer: str, level: str, tmp_path: Path
) -> None:
    (secret := tmp_path / "node.key").write_text("a secret")
    code = f"""
import os, sys
try:
    found = open({str(secret)!r}).read()
except OSError as error:
    found = type(error).__name__
sys.stderr.write(f"found: {{found}}")
sys.stderr.flush()
os._exit(3)
"""
    sdist(index, "curious", code=code)
    sentence = refused(made((secret,), sdists=True), "curious")
    assert ("a secret" in sentence) == (level == LIMITS), sentence
    if level != LIMITS:
        assert "found: " in sentence
        assert "Error" in sentence


def test_source_distributions_are_built_where_the_owner_allows_it(
    made: Made, index: Path, installer: str
) -> None:
    sdist(index, "sourced", code="")
    assert said(prepared(made(sdists=True), "sourced"), "import sourced; print('ok')") == "ok"


LEADS_OUT = {
    "packages": "glob.glob(top + '/lib/python3*/site-packages')[0] + '/manta-node.pth'",
    "entry": "top + '/.manta-environment'",
    "commands": "top + '/bin/more'",
}


@pytest.mark.parametrize("where", LEADS_OUT)
def test_what_a_build_leaves_leads_the_node_nowhere(
    made: Made, index: Path, installer: str, tmp_path: Path, where: str
) -> None:
    (victim := tmp_path / "profile").write_text("#!/usr/bin/python\n")
    code = f"""
import glob, os
top = os.path.dirname(os.environ["HOME"])
place = {LEADS_OUT[where]}
if not os.path.islink(place):
    os.symlink({str(victim)!r}, place)
"""
    sdist(index, "linking", code=code)
    sentence = refused(made(sdists=True), "linking")
    assert "a link or something else that is no file" in sentence
    assert victim.read_text() == "#!/usr/bin/python\n"


def test_the_log_of_a_build_is_no_link_and_no_pipe(
    made: Made, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "_uv", lambda: None)
    secret = tmp_path / "secret"
    failed = "ERROR: [present-rich]"
    secret.write_text(f"Running command x\nthe password\nmore\n{failed}\n")
    code = f"""
import os
log = os.environ["HOME"] + "/log.txt"
os.unlink(log)
os.symlink({str(secret)!r}, log)
os._exit(3)
"""
    sdist(index, "reading", code=code)
    assert "the password" not in refused(made(sdists=True), "reading")
    piped = code.replace(f"os.symlink({str(secret)!r}, log)", "os.mkfifo(log)")
    sdist(index, "waiting", code=piped)
    refused(made(sdists=True), "waiting")


def test_a_plain_process_that_installs_is_said_aloud(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = selection.local
    monkeypatch.setattr(selection, "local", lambda private: real(private, ()))
    prepared(made(), "letters")
    assert "is installed by a plain process" in caplog.text


def test_whoever_is_in_a_container_may_read_it_whatever_the_umask_is(
    made: Made, installer: str
) -> None:
    before = os.umask(0o077)
    try:
        folder = prepared(made(), "greeting")
    finally:
        os.umask(before)
    assert unreadable(folder) == [".manta-environment"]  # which only the node reads
    assert os.stat(folder / "bin" / "greeting-say").st_mode & 0o005 == 0o005


def test_those_who_want_the_same_wait_for_one_build(made: Made, index: Path) -> None:
    these, heard = made(), list[str]()
    asked = [
        these.prepare("code", ["greeting"], f"task {number}", heard.append) for number in range(8)
    ]
    wait(asked, 120)
    assert len({one.result() for one in asked}) == 1
    assert len([*these._folders.path.iterdir()]) == 1
    assert these.there == (digest_of(["greeting"]),)
    assert sum("was installed in" in sentence for sentence in heard) == 8
    index.rename(index.with_name("gone"))  # it is there already, and nothing is looked up again
    assert prepared(made(), "greeting") == asked[0].result()


def test_hashes_are_demanded_and_checked(made: Made, index: Path, installer: str) -> None:
    right = sha256(wheel(index, "pinned"))
    assert prepared(made(), f"pinned==1.0 --hash=sha256:{right}")
    wrong = f"pinned==1.0 --hash=sha256:{'0' * 64}"
    assert "ash" in refused(made(), wrong)
    assert "ash" in refused(made(), "--require-hashes", "pinned==1.0")


def test_what_markers_leave_out_needs_nothing(made: Made) -> None:
    these = made(index="/there/is/none")
    lines = ["nothing; python_version < '3'"]
    assert these.prepare("code", lines, "task", lambda _: None).result(10) is None


def test_who_may_install_nothing_is_told(made: Made) -> None:
    these = made(allow=False)
    assert "requirements.allow = false" in refused(these, "greeting")
    assert these.there == ()


def test_more_than_there_is_room_for_is_ended_and_told(
    made: Made, index: Path, installer: str
) -> None:
    wheel(index, "large", files={"data.bin": bytes(80 << 20)})  # which packs to next to nothing
    sentence = refused(made(most_bytes=64 << 20), "large")
    assert "takes more than the 64 MiB" in sentence
    assert "requirements.disk_mb" in sentence


def test_a_build_that_takes_too_long_is_ended_and_told(
    made: Made, index: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    sdist(index, "slow", code="import time; time.sleep(600)")
    real = building.Bench.run
    monkeypatch.setattr(building.Bench, "run", partialmethod(real, seconds=3.0))
    assert "was not installed in time" in refused(made(sdists=True), "slow")


def test_a_build_ends_with_its_node(made: Made, index: Path, level: str) -> None:
    sdist(index, "slow", code="import time; time.sleep(600)")
    these = made(sdists=True)
    asked = these.prepare("code", ["slow"], "task", lambda _: None)
    drafts: list[Path] = []

    def building_processes() -> set[int]:
        drafts[:] = drafts or these._folders.path.glob(".draft-*")
        return set().union(*(marked(f"MANTA_BUILD={draft.name}") for draft in drafts))

    wait_until(building_processes, 60)
    these.close()
    with pytest.raises(LaunchError, match="The node is stopping"):
        asked.result(20)
    assert not building_processes()
    assert not drafts[0].exists()


LEAVES = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 256)  # or the installer waits for what it says
    HIDES
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(600)",
                                   "MARK"], {})
    os._exit(0)
os.wait()
END
"""
KILLS_ITS_KEEPER = """
    pid = os.getpid()
    while pid > 1:
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                if "manta.node.isolation.adopt" in file.read():
                    os.kill(pid, 9)
        except OSError:
            pass
"""


def with_mark(mark: str) -> list[str]:
    """Processes of this machine that have it in their command line."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0"):
                found.append(name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("hides", ["pass", KILLS_ITS_KEEPER.strip()], ids=["away", "its keeper"])
@pytest.mark.parametrize("end", ["", "os._exit(3)", "time.sleep(600)"])
def test_nothing_that_a_build_starts_outlives_it(
    made: Made,
    index: Path,
    level: str,
    holder: Holder,
    hides: str,
    end: str,
) -> None:
    mark = f"left-{secrets.token_hex(8)}"
    code = LEAVES.replace("HIDES", hides).replace("MARK", mark).replace("END", end)
    sdist(index, "leaving", code=code)
    these = made(sdists=True)
    asked = these.prepare("code", ["leaving"], "task", lambda _: None)
    if "sleep" in end:
        wait_until(lambda: asked.done() or with_mark(mark), 60)
        these.leave("task")
    wait([asked], 60)
    assert asked.done()
    left = with_mark(mark)
    if level == LIMITS and hides != "pass" and holder.plan.processes is not Means.GROUP:
        assert left  # as the page on security says
        kill_tree(set(map(int, left)))
    else:
        assert not left


def test_a_build_that_forks_without_end_is_ended_or_refused_and_told(
    made: Made, index: Path, holder: Holder, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, "_limits", Limits(processes=48))
    code = """
import os, sys, time
for _ in range(200):
    try:
        if os.fork() == 0:
            os.closerange(0, 256)
            time.sleep(600)
            os._exit(0)
    except OSError:
        os._exit(9)
    time.sleep(0.005)
time.sleep(600)
"""
    sdist(index, "forking", code=code)
    refused(made(sdists=True), "forking")


def test_environments_are_built_one_at_a_time_and_what_nobody_waits_for_is_given_up(
    made: Made, index: Path
) -> None:
    sdist(index, "slow", code="import time; time.sleep(600)")
    these, heard = made(sdists=True), list[str]()
    slow = these.prepare("code", ["slow"], "task 1", lambda _: None)
    wait_until(lambda: list(these._folders.path.glob(".draft-*")), 60)
    waiting = these.prepare("code", ["letters"], "task 2", heard.append)
    wait_until(lambda: heard, 60)
    assert "is installed on node 'node-1' once others are" in heard[0]
    assert len(list(these._folders.path.glob(".draft-*"))) == 1
    again = these.prepare("code", ["slow"], "task 3", lambda _: None)
    these.leave("task 1")
    assert not slow.done()  # another task waits for it
    these.leave("task 3")
    for one in (slow, again):
        with pytest.raises(LaunchError, match="nobody waits for it"):
            one.result(60)
    assert waiting.result(60) is not None


def test_what_waits_to_be_installed_has_a_bound(
    made: Made, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "MOST_PENDING", 1)
    sdist(index, "slow", code="import time; time.sleep(600)")
    these = made(sdists=True)
    these.prepare("code", ["slow"], "task 1", lambda _: None)
    with pytest.raises(LaunchError, match="the requirements of 1 modules to install already"):
        prepared(these, "letters", user="task 2")
    these.leave("task 1")
    wait_until(lambda: not these._pending, 60)
    assert prepared(these, "letters", user="task 2").exists()


def test_those_not_used_for_longest_go_and_none_that_is_in_use(made: Made, index: Path) -> None:
    one = prepared(made(), "letters")
    size = size_of(one)
    for number in range(3):
        wheel(index, f"more{number}")
    these = made(most_bytes=max(size * 3, 200 << 20))
    these._folders.most_bytes = int(size * 2.5)
    kept = these._folders
    first = kept.find(one.name)
    assert first == one
    kept.use(one.name, "task 0")
    os.utime(one, (1, 1))  # the oldest, and in use
    drafts = []
    for number in range(3):
        draft = kept.path / f".draft-{number}"
        draft.mkdir()
        (draft / "bin").mkdir()
        (draft / "bin" / "python").symlink_to("/bin/sh")
        drafts.append(kept.add(f"{number}" * 64, draft, Entry(f"{number}", size)))
    assert one.exists()
    assert drafts[2].exists()
    assert not drafts[0].exists()
    assert not drafts[1].exists()


def test_what_was_not_whole_when_a_daemon_ended_is_removed(made: Made) -> None:
    folder = prepared(made(), "letters")
    (folder.parent / ".draft-left").mkdir()
    (folder.parent / ("0" * 64)).mkdir()
    these = made()
    assert these.there == (digest_of(["letters"]),)
    assert [*folder.parent.iterdir()] == [folder]


def test_a_state_folder_that_takes_nothing_is_told(made: Made, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("no folder")
    with pytest.raises(StorageError, match="can't be installed"):
        prepared(made(), "letters")
