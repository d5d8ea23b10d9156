"""A file of ours that holds junk, bad UTF-8 among it, is named and is no crash."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from manta.apis.connect.profiles import local_server_key
from manta.cli.local import up_state
from manta.manager.home import Home
from manta.node.errors import IdentityError
from manta.node.journal import records
from manta.node.state import StateFolder
from manta.transports.codec.stored import Damaged

JUNK = [b"", b"{", b"\xff\xfe", b'{"node_id": "\xff"}', b'"\xc3"', b"[1, 2]", b"\x00" * 50]
DEEP = b'{"x": ' + b"[" * 50_000


@pytest.mark.parametrize("junk", JUNK)
def test_node(tmp_path: Path, junk: bytes) -> None:
    state = StateFolder(tmp_path)
    state.identity_file.write_bytes(junk)
    state.status_file.write_bytes(junk)
    with pytest.raises(IdentityError, match=r"identity\.json"):
        state.read_identity()
    state.member_file.write_bytes(junk)
    with pytest.raises(Damaged, match=r"status\.json is damaged .*: .*; .*\."):
        state.read_status()
    with pytest.raises(Damaged, match=r"member\.json is damaged .*: .*; .*\."):
        state.read_member()
    framed = struct.pack("<II", len(junk), zlib.crc32(junk)) + junk
    assert records.decode(framed)[:2] == ([], 0)


@pytest.mark.parametrize("junk", [*JUNK, DEEP])
def test_manager(tmp_path: Path, junk: bytes) -> None:
    home = Home(tmp_path / "manager")
    home.path.mkdir(mode=0o700)
    home.manager_file.write_bytes(junk)
    home.restored_file.write_bytes(junk)
    with pytest.raises(Damaged, match=r"manager\.json is damaged"):
        home.read_manager_file()
    with pytest.raises(Damaged, match=r"restored\.json is damaged .*: .*; restore the backup"):
        home.read_restored_file()
    assert home.running() is None
    assert local_server_key(tmp_path) is None
    up_state.file(tmp_path).write_bytes(junk)
    assert up_state.read(tmp_path) is None
