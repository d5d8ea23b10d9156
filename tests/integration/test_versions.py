"""The SDK and a manager of another version, over real sockets."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import zmq

from manta import UserAPI
from manta.apis.errors import VersionMismatch
from manta.apis.profiles import Target
from manta.apis.session import Session
from manta.cli.local import HOST, LocalCluster
from manta.testing.clusters import running
from manta.transports.admission import Admission
from manta.transports.frames import Bye, Kind
from manta.transports.keys import KeyPair
from manta.transports.sockets import SocketFactory
from manta.transports.zap import ZapServer


def test_another_major_version_is_refused_by_a_sentence_that_names_both() -> None:
    context, keys = zmq.Context(), KeyPair.generate()
    zap = ZapServer(context)
    zap.start()
    zap.register("home", Admission(guests=True))
    factory = SocketFactory(context, keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    port = int(factory.bind(router, f"tcp://{HOST}:0").rpartition(":")[2])
    target = Target(HOST, port, "test", server_key=keys.public)
    try:
        with UserAPI.over(Session(target, KeyPair.generate())) as api:
            waiting = api.connection.session.up(20.0)
            name = router.recv_multipart()[0]
            router.send_multipart([name, bytes((2, 3, Kind.BYE, Bye.VERSION)) + b"and more"])
            with pytest.raises(VersionMismatch) as refused:
                waiting.result(20)
            assert "(2.3, and this side 1.0): update Manta" in str(refused.value)
            with pytest.raises(VersionMismatch, match=r"2\.3"):
                api.list_clusters()
    finally:
        router.close(0)
        zap.stop()
        context.term()


def test_another_minor_version_interoperates(tmp_path: Path) -> None:
    with running(LocalCluster, 0) as cluster:
        cluster.keys.save(tmp_path / "key")
        code = f"""
            from manta.transports import frames
            frames.MINOR = 7
            from manta import UserAPI
            from manta.apis.profiles import Target
            from manta.apis.session import Session
            from manta.transports.keys import KeyPair
            key = {cluster.manager_keys.public!r}
            target = Target({HOST!r}, {cluster.user_port}, "t", server_key=key)
            with UserAPI.over(Session(target, KeyPair.load({str(tmp_path / "key")!r}))) as api:
                print([found.status for found in api.list_clusters()])
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("['RUNNING']\n", "")
