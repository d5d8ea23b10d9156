"""How blobs are looked up: by a few statements, however many are asked for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from manta.manager.store import references
from manta.manager.store.interface import Reference


class Asked:
    """A database, and the texts of the statements that read it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.texts = set[str]()

    def __call__(self, statement: str, *arguments: Any) -> list[Any]:
        self.texts.add(statement)
        return self.connection.execute(statement, arguments).fetchall()


@pytest.mark.parametrize("places", [1, 3, 300])
def test_statements_do_not_differ_by_how_many_blobs_are_asked_for(places: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE blob_references (digest, holder, scope)")
        every = [f"{number:064x}" for number in range(700)]
        references.write(connection, Reference("here", tuple(every[::2]), "scope"))
        asked = Asked(connection)
        others = [f"place-{number}" for number in range(places - 1)]
        for count in (*range(1, 70), 255, 256, 257, 400, 700):
            some = every[:count]
            assert references.unreferenced(asked, some) == set(some[1::2])
            for holders, scopes in (([*others, "here"], []), ([], [*others, "scope"])):
                assert references.named(asked, some, holders, scopes) == set(some[::2])
            assert references.named(asked, some, ["elsewhere"], []) == set()
        assert len(asked.texts) <= 60
