"""Swarms whose task connects somewhere, and listeners that answer them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from manta import Module, Swarm, Task, UserAPI
from manta.audit.verify import read as read_log

CODE = """
import socket

def said(host, port, text=b"hello"):
    with socket.create_connection((host, port), 20) as one:
        one.sendall(text)
        one.shutdown(socket.SHUT_WR)
        found = b""
        while more := one.recv(65536):
            found += more
    return found

def outcome(*where):
    try:
        return said(*where).decode()
    except OSError as error:
        return type(error).__name__

def main():
    return {returns}
"""


class Reaching(Swarm):
    def __init__(
        self, returns: str, *ways: str, of_module: bool = False, image: str | None = None
    ) -> None:
        super().__init__()
        code, both = CODE.format(returns=returns), list(ways)
        module = Module(code, image, name="code", network=both if of_module else None)
        self.task = Task(module, alias="task", network=None if of_module else both)


@contextmanager
def echo(host: str = "127.0.0.1") -> Iterator[int]:
    """Answers each connection, once that has said all, with what it said, in capitals."""
    with socket.create_server((host, 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    one, _ = listening.accept()
                except OSError:
                    return
                with one:
                    said = b""
                    while more := one.recv(65536):
                        said += more
                    one.sendall(said.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def output(lab: Any, api: UserAPI, swarm: Swarm) -> Any:
    [task] = api.get_tasks(lab.run(api, swarm))
    return task.output


def records(node: Any, act: str) -> list[dict[str, Any]]:
    log = read_log(node.context.state.audit)
    return [record.about for _, record in log if record.act == act]
