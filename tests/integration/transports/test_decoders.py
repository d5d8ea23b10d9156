"""Many threads that decode for the first time at once; in processes of their own, since what goes
wrong there is a crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
import msgspec
from manta.protocol import clusters, user, users
from manta.apis.connect.profiles import Profile
from manta.transports.codec.decoders import convert, json_decoder, msgpack_decoder

sys.setswitchinterval(1e-6)
gate = threading.Barrier(24)
kinds = [clusters.Nodes, user.Swarms, clusters.Clusters, users.Modules]
done = []

def decode(number):
    gate.wait()
    for kind in kinds[number % 4:] + kinds[: number % 4]:
        name = kind.__name__
        value = {"type": name, name.lower(): []}
        packed, text = msgspec.msgpack.encode(value), msgspec.json.encode(value)
        assert isinstance(msgpack_decoder(kind).decode(packed), kind)
        assert isinstance(json_decoder(kind).decode(text), kind)
        assert isinstance(convert({}, Profile), Profile)
    done.append(number)

threads = [threading.Thread(target=decode, args=(number,)) for number in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(done) == list(range(24))
"""


@pytest.mark.parametrize("run", range(5))
def test_threads_that_decode_for_the_first_time_at_once(run: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
