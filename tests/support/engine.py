"""A container engine of the tests' own: Debian's dockerd, run as root, apart from any other.

Its data, and the images that are built once, lie in a cache outside the repository; one test run
at a time uses such a folder, others take the next. Its socket and all else is temporary. No
registry is needed: the base image is a Debian by debootstrap. Where there is no engine to
be had the tests are skipped, unless MANTA_TEST_ENGINE=required, with which they fail; with
MANTA_TEST_ENGINE=off none is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
PLACES = f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"
START_TIME = 30.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manta-tests"


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("MANTA_TEST_ENGINE") == "required":
        pytest.fail(f"MANTA_TEST_ENGINE=required, but {reason}", pytrace=False)
    pytest.skip(f"needs a container engine: {reason}")


def no_gvisor(reason: str) -> NoReturn:
    if os.environ.get("MANTA_TEST_GVISOR") == "required":
        pytest.fail(f"MANTA_TEST_GVISOR=required, but {reason}", pytrace=False)
    pytest.skip(f"needs gVisor: {reason}")


def tool(name: str) -> str:
    packages = "docker.io docker-registry debootstrap"
    path = shutil.which(name, path=PLACES)
    return path or unavailable(f"{name} is not installed (apt-get install {packages})")


class TestEngine:
    """`start` and `stop` it as often as wanted; containers do not survive that."""

    __test__ = False

    def __init__(self, data: Path, runtimes: dict[str, Any] | None = None) -> None:
        """`runtimes`: those of the engine besides its own, as its configuration has them."""
        self.folder = Path(tempfile.mkdtemp(prefix="manta-engine-"))
        self.address = f"unix://{self.folder}/docker.sock"
        self._data = data
        (self.folder / "daemon.json").write_text(json.dumps({"runtimes": runtimes or {}}))
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def start(self) -> None:
        log = self.folder / "log"
        command = [
            tool("setpriv"),
            "--pdeathsig=TERM",
            tool("dockerd"),
            f"--config-file={self.folder}/daemon.json",
            f"--data-root={self._data}",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--host={self.address}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": PLACES},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIME
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").splitlines()[-3:]
                self.stop()
                unavailable(f"dockerd does not start here: {last}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        from manta.node.runners.engine import problem

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.address)
            return problem() is None

    def stop(self) -> None:
        self.hang_up()
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(60)

    def hang_up(self) -> None:
        """Close our own connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def kill(self) -> None:
        """With SIGKILL: the containers' processes live on until it is started again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)
        self._process = None

    def close(self) -> None:
        self.stop()
        for line in Path("/proc/mounts").read_text().splitlines():
            mount = line.split()[1]
            if mount.startswith(f"{self.folder}/"):  # dockerd leaves one, of its network
                subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self.folder)

    @property
    def client(self) -> Any:
        """A `docker.APIClient` of its own."""
        if self._client is None:
            import docker

            self._client = docker.APIClient(self.address, version="auto")
        return self._client

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.containers(all=True)
        return found

    # Images.

    def base(self) -> str:
        """Debian with python3 and nothing else."""
        name = f"manta-test:{SUITE}"
        if not self._has(name):
            self.client.import_image_from_file(
                str(base_tar()), repository="manta-test", tag=SUITE, changes=["CMD python3"]
            )
        return name

    def build(self, dockerfile: str, folder: Path | None = None, **arguments: str) -> str:
        """An image `FROM BASE`, by what is in the Dockerfile; made once."""
        recipe = repr((dockerfile, str(folder), sorted(arguments.items())))
        name = f"manta-test:{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
        if self._has(name):
            return name
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            data = dockerfile.replace("BASE", self.base()).encode()
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            if folder is not None:
                tar.add(folder, "files")
        context.seek(0)
        said = ""
        for step in self.client.build(
            fileobj=context,
            custom_context=True,
            tag=name,
            rm=True,
            decode=True,
            network_mode="host",
            buildargs=arguments,
        ):
            said += step.get("stream", "")
            assert "error" not in step, said + step["error"]
        return name

    def numpy(self) -> str:
        """The base with numpy, and nothing of Manta."""
        with tempfile.TemporaryDirectory(prefix="manta-wheels-") as folder:
            name = f"manta-test:{SUITE}-numpy"
            if self._has(name):
                return name
            subprocess.run(
                f"{sys.executable} -m pip install --quiet --disable-pip-version-check --target "
                f"{folder} --only-binary=:all: --python-version {PYTHON} numpy".split(),
                check=True,
            )
            place = f"/usr/local/lib/python{PYTHON}/dist-packages"
            built = self.build(f"FROM BASE\nCOPY files {place}\n", Path(folder))
            self.client.tag(built, "manta-test", f"{SUITE}-numpy")
        return name

    def python(self, executable: str) -> str:
        """The base with that Python of this machine in place of its own, and no package; also where
        it lies in root's home, for users that are not root."""
        code = "import sys; print(sys.base_prefix, *sys.version_info[:3], sep='\\n')"
        said = subprocess.run([executable, "-c", code], capture_output=True, text=True, check=True)
        prefix, *version = said.stdout.splitlines()
        if prefix == "/usr":  # the base's own is as good
            return self.base()
        name = f"manta-test:anybodys-python{'.'.join(version)}"
        if self._has(name):
            return name
        left_out = shutil.ignore_patterns("__pycache__", "test", "site-packages", "*.a", "share")
        with tempfile.TemporaryDirectory(prefix="manta-python-") as folder:
            shutil.copytree(prefix, f"{folder}/python", symlinks=True, ignore=left_out)
            built = self.build(
                f"FROM BASE\nRUN rm /usr/bin/python3* && chmod 0711 /root\n"
                f"COPY files/python {prefix}\n"
                f"ENV PATH={prefix}/bin:/usr/bin:/bin\n",
                Path(folder),
            )
            self.client.tag(built, *name.split(":"))
        return name

    def _has(self, image: str) -> bool:
        return bool(self.client.images(image))


def base_tar() -> Path:
    """Made once, which takes about a minute."""
    tar = CACHE / f"{SUITE}.tar"
    with locked(CACHE / "base.lock"):
        if tar.exists():
            return tar
        with tempfile.TemporaryDirectory(prefix="manta-debootstrap-") as folder:
            root = Path(folder) / "root"
            command = [tool("debootstrap"), "--variant=minbase", "--include=python3", SUITE]
            done = subprocess.run(
                [*command, str(root)],
                env={**os.environ, "PATH": PLACES},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                unavailable(f"debootstrap fails: {done.stdout[-500:]}")
            for name in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(root / name, ignore_errors=True)
            draft = tar.with_suffix(".new")
            with tarfile.open(draft, "w") as file:
                file.add(root, ".")
            draft.rename(tar)
    return tar


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Raises BlockingIOError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@contextlib.contextmanager
def running_engine(runtimes: dict[str, Any] | None = None) -> Iterator[TestEngine]:
    """Over the first data folder that no other engine uses."""
    if os.environ.get("MANTA_TEST_ENGINE") == "off":
        unavailable("MANTA_TEST_ENGINE=off")
    if sys.platform != "linux" or os.getuid() != 0:
        unavailable("dockerd is started by root, on Linux")
    with contextlib.ExitStack() as undo:
        for number in range(100):
            with contextlib.suppress(BlockingIOError):
                undo.enter_context(locked(CACHE / f"engine-{number}.lock", wait=False))
                break
        engine = TestEngine(CACHE / f"engine-{number}", runtimes)
        undo.callback(engine.close)
        engine.start()
        for left in engine.containers():  # of a run that was killed
            engine.client.remove_container(left["Id"], force=True, v=True)
        yield engine


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """One for all tests; nodes find it while `docker_host` says so."""
    with running_engine() as engine:
        engine.base()
        engine.hang_up()
        yield engine


@pytest.fixture
def docker_host(engine: TestEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestEngine]:
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    yield engine
    engine.hang_up()


def gvisor_runtimes() -> dict[str, Any]:
    """gVisor's, as its documentation says, on the platform that needs no virtualization."""
    program = shutil.which("runsc", path=PLACES)
    if program is None:
        no_gvisor("runsc is not installed (apt-get install runsc)")
    flags = ["--host-uds=open", "--network=none", "--oci-seccomp", "--platform=ptrace"]
    return {"runsc": {"path": program, "runtimeArgs": flags}}


@pytest.fixture(scope="session")
def gvisor_engine() -> Iterator[TestEngine]:
    """Another, which has gVisor's runtime."""
    with running_engine(gvisor_runtimes()) as engine:
        engine.base()
        engine.hang_up()
        yield engine


@pytest.fixture
def gvisor_host(gvisor_engine: TestEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestEngine]:
    monkeypatch.setenv("DOCKER_HOST", gvisor_engine.address)
    yield gvisor_engine
    gvisor_engine.hang_up()
