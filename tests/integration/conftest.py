"""What real sockets need once, before any test is watched for leaks."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _zero_copy_thread() -> None:
    """pyzmq starts it with the first send without a copy; it lives as long as the process."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("inproc://zero-copy")
        two.connect("inproc://zero-copy")
        one.send(bytes(zmq.COPY_THRESHOLD), copy=False, track=True)
        two.recv()
