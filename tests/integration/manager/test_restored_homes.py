"""What a backup has, and what the tools beside a manager leave of its folder."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from manta.manager import backup
from manta.manager.backup import restore, verify_file
from manta.manager.home import Home, ManagerSettings
from manta.manager.recovery import reset_password
from manta.manager.service import Manager
from manta.protocol.user import GetSwarm
from manta.testing.manager import Client
from tests.integration.manager.test_swarms import deploy, round_trip

SETTINGS = ManagerSettings("tcp://127.0.0.1:5", "tcp://127.0.0.1:6", "tcp://127.0.0.1:7", 45.0)


def test_a_restored_manager_has_its_ports_and_its_lease(bench, tmp_path: Path) -> None:
    bench.stop()
    home = Home(bench.home)
    home.write_settings(SETTINGS)
    backup.backup(home, tmp_path / "file")
    assert verify_file(tmp_path / "file").flaws == []
    restore(tmp_path / "file", Home(tmp_path / "restored"))
    assert Home(tmp_path / "restored").read_settings() == SETTINGS


def test_a_backup_without_settings_keeps_those_that_were_there(bench, tmp_path: Path) -> None:
    bench.stop()
    home = Home(bench.home)
    home.settings_file.unlink()
    backup.backup(home, tmp_path / "file")
    home.write_settings(SETTINGS)
    restore(tmp_path / "file", home, replace=True)
    assert home.read_settings() == SETTINGS


def test_what_was_damaged_keeps_nothing_else_from_being_restored(
    bench, admin: Client, tmp_path: Path
) -> None:
    swarm = deploy(admin, round_trip(), wait=True)
    bench.stop()
    home = Home(bench.home)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as store:
        store.execute("INSERT INTO users VALUES ('eve', ?)", (b"\xff",))
        store.execute("INSERT INTO blob_references VALUES (?, 'x', '')", (b"\x00\xff",))
    home.settings_file.write_text("{")
    backup.backup(home, tmp_path / "file")
    place = Home(tmp_path / "restored")
    flaws = restore(tmp_path / "file", place).flaws
    assert [one for one in flaws if one.startswith(f"The record eve of the users in {place.path}")]
    assert [one for one in flaws if "which names a blob that is needed, is damaged" in one]
    assert [one for one in flaws if one.startswith(f"{place.settings_file} is damaged")]
    assert len(flaws) == 3
    bench.settings = replace(bench.settings, home=place.path)
    bench.start()
    assert admin.ask(GetSwarm(swarm)).status == "ACTIVE"


def test_a_password_that_is_reset_after_a_crash_makes_no_log_seem_lost(
    bench, tmp_path: Path, caplog
) -> None:
    """What was in the log is in the database then."""
    bench.stop()
    killed = Home(bench.home)
    killed.write_manager_file(bench.manager.file)  # as one that was killed leaves it
    with closing(sqlite3.connect(killed.database, isolation_level=None)) as store:
        store.execute("CREATE TABLE anything (x)")
        assert os.path.exists(killed.database_log)
        for name in (killed.database, killed.database_log):
            (tmp_path / name.name).write_bytes(name.read_bytes())
    for name in (killed.database, killed.database_log):
        name.write_bytes((tmp_path / name.name).read_bytes())
    reset_password(killed, None, "another password")
    caplog.clear()
    bench.start()
    assert "is gone, with the newest changes" not in caplog.text
    assert isinstance(bench.manager, Manager)
