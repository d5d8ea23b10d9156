from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from manta.node.state.storage import ROOM, ROOM_AGAIN, Storage


def test_it_tells_what_changed_and_asks_for_more_room_once_there_was_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = ROOM

    def allocate(fd: int, offset: int, size: int) -> None:
        if size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    disk = Storage(tmp_path, tmp_path / "missing is told, too")
    assert disk.check()
    assert "cannot write in" in disk.trouble
    assert "missing" in disk.trouble
    disk = Storage(tmp_path)
    assert not disk.check()
    free = ROOM - 1
    assert disk.check()
    assert disk.trouble == (
        f"cannot write in {tmp_path} (No space left on device; make room on that disk)"
    )
    free = ROOM_AGAIN - 1
    assert not disk.check()
    free = ROOM_AGAIN
    assert disk.check()
    assert disk.trouble == ""
    assert list(tmp_path.iterdir()) == []
