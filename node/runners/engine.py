"""The container engine of this machine, as its API answers on a Unix socket.

Its client costs 160 ms to import: `problem` asks without it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from manta.node.errors import EngineError, ImageMissing

DEFAULT = "unix:///var/run/docker.sock"
TIMEOUT = 60.0
"""Seconds for a command; a container's end and a pull are waited for without limit."""
_PING = 2.0
_MOST, _LONGEST = 200, 200  # images that are told of, and characters of their names
_NAMELESS = "<none>:<none>"


def address() -> str:
    """Of the engine, as `docker` finds it. Raises EngineError for one of another machine."""
    found = os.environ.get("DOCKER_HOST") or DEFAULT
    if not found.startswith("unix://"):
        raise EngineError(
            f"DOCKER_HOST is {found}: a node needs an engine of its own machine, by its Unix "
            f"socket, since it mounts its folders: unset it, or set it to {DEFAULT}."
        )
    return found


def problem() -> str | None:
    """Why no engine can be used now, without a full stop; None when one answers."""
    try:
        where = address()
    except EngineError as error:
        return str(error).rstrip(".")
    with contextlib.closing(_Connection(where.removeprefix("unix://"))) as connection:
        try:
            connection.request("GET", "/_ping")
            status = connection.getresponse().status
        except FileNotFoundError:
            return f"there is no container engine at {where}"
        except PermissionError:
            return f"this user may not use the container engine at {where}"
        except (OSError, http.client.HTTPException) as error:
            return f"the container engine at {where} does not answer ({error})"
    if status != http.HTTPStatus.OK:
        return f"what answers at {where} is no container engine"
    return None


def described() -> tuple[str, tuple[str, ...]]:
    """What the engine is, and the names of the images that it has; nothing if it does not say."""
    try:
        version, images = _told("/version"), _told("/images/json")
        words = (version["Platform"]["Name"] or "engine", version["Version"])
        names = {name for image in images for name in image.get("RepoTags") or ()}
    except (EngineError, OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return "", ()
    kept = sorted(name for name in names if len(name) <= _LONGEST and name != _NAMELESS)
    return " ".join(words)[:_LONGEST], tuple(kept[:_MOST])


def _told(path: str) -> Any:
    where = address().removeprefix("unix://")
    with contextlib.closing(_Connection(where)) as connection:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PING)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Gone(EngineError):
    """The container is not there (any more), or is just being removed."""


class Away(EngineError):
    """The engine does not answer."""


class Engine:
    """The client of the engine, made when it is first used. For any thread."""

    def __init__(self) -> None:
        self.address = address()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """A `docker.APIClient`. Raises EngineError."""
        if self._client is None:
            import docker

            with self.errors():
                self._client = docker.APIClient(self.address, version="auto", timeout=TIMEOUT)
        return self._client

    def containers(self, label: str) -> list[dict[str, Any]]:
        """All with that `key=value`, running or not. Raises EngineError."""
        client = self.client
        with self.errors():
            found: list[dict[str, Any]] = client.containers(all=True, filters={"label": label})
        return found

    def has_image(self, image: str) -> bool:
        """Raises EngineError, ImageMissing for a name that cannot be one."""
        from docker.errors import APIError, ImageNotFound

        client = self.client
        with self.errors():
            try:
                client.inspect_image(image)
            except ImageNotFound:
                return False
            except APIError as error:
                if error.is_client_error():
                    raise ImageMissing(_one_line(error.explanation)) from None
                raise
        return True

    def digested(self, image: str) -> str:
        """The image with the digest of its contents. Raises EngineError."""
        from docker.errors import ImageNotFound

        client = self.client
        with self.errors():
            try:
                found = client.inspect_image(image)
            except ImageNotFound:  # it was removed meanwhile
                return image
        digests = [one.partition("@")[2] for one in found.get("RepoDigests") or ()]
        return f"{image}@{digests[0] if digests else found['Id']}"

    def contents(self, image: str) -> tuple[str, int] | None:
        """The id and the size in bytes of what an image's name leads to, if there is one. Raises
        EngineError."""
        from docker.errors import ImageNotFound

        client = self.client
        with self.errors():
            try:
                found = client.inspect_image(image)
            except ImageNotFound:
                return None
        return found["Id"], found["Size"]

    def remove_image(self, image: str) -> None:
        """Raises EngineError if a container uses it."""
        client = self.client
        with contextlib.suppress(Gone), self.errors():
            client.remove_image(image)

    def pull(self, image: str) -> None:
        """Raises EngineError, ImageMissing."""
        from docker.errors import APIError

        client = self.client
        with self.errors():
            try:
                for step in client.pull(image, stream=True, decode=True):
                    if "error" in step:
                        raise ImageMissing(_one_line(step["error"]))
            except APIError as error:
                raise ImageMissing(_one_line(error.explanation or str(error))) from None

    def signals(self, container: str, since: float) -> set[int]:
        """Signals that users had the engine send it (docker stop, kill, rm --force).

        `since`: seconds since the epoch; what lies long before the container's end may be
        forgotten. Raises EngineError.
        """
        client = self.client
        asked = {"type": "container", "container": container, "event": "kill"}
        with self.errors():
            found = client.events(int(since), f"{time.time():.9f}", asked, decode=True)
            return {int(event["Actor"]["Attributes"].get("signal", 0)) for event in found} - {0}

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns the client's into EngineError, Gone, Away.

        Knocks first: the client leaves sockets open that it could not connect.
        """
        from docker.errors import APIError, DockerException, NotFound
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.connect(self.address.removeprefix("unix://"))
            yield
        except NotFound as error:
            raise Gone(_one_line(error.explanation or str(error))) from error
        except APIError as error:
            said = _one_line(error.explanation or str(error))
            if error.status_code == http.HTTPStatus.CONFLICT and "removal" in said:
                raise Gone(said) from error
            raise EngineError(f"The container engine refused: {said}") from error
        except (DockerException, RequestException, HTTPError, OSError, ValueError) as error:
            raise Away(
                f"The container engine does not answer ({self.address}): start it "
                "(systemctl start docker), and see that this user may use its socket."
            ) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if line.endswith(".") else line + "."
