"""Peers with processes of their own, all asked by this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from manta import Mesh

SECRET = "what all of them know"
PATIENCE = 100.0


class Peers:
    """Those of one mesh that this process has begun."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self._pool = ThreadPoolExecutor(16)
        undo.callback(self._pool.shutdown, wait=False)
        self.all: list[Mesh] = []

    def add(self, count: int = 1, **options: Any) -> list[Mesh]:
        """Further ones, all by the first of the mesh; none of them is waited for."""
        new: list[Mesh] = []
        if not self.all:
            new.append(self._join(0, **options))
        first = self.all[0].address
        options = {"peers": [first], **options}
        places = range(len(self.all), len(self.all) + count - len(new))
        new += self._pool.map(lambda place: self._join(place, **options), places)
        return new

    def _join(self, place: int, **options: Any) -> Mesh:
        given = {"secret": SECRET, "name": f"peer-{place}", "timeout": PATIENCE, **options}
        mesh = Mesh.join(**given)
        self._undo.callback(mesh.leave)
        self.all.append(mesh)
        return mesh

    def each(self, call: Callable[[Mesh], Any], meshes: list[Mesh] | None = None) -> list[Any]:
        """What the call gives or raises at each of them, all at the same time, by rank."""

        def made(mesh: Mesh) -> Any:
            try:
                return call(mesh)
            except Exception as error:
                return error

        meshes = sorted(self.all if meshes is None else meshes, key=lambda mesh: mesh.rank)
        return list(self._pool.map(made, meshes))

    def meet(self, size: int, meshes: list[Mesh] | None = None) -> None:
        """All of them wait for so many."""
        found = self.each(lambda mesh: mesh.wait(size, PATIENCE), meshes)
        assert found == [None] * len(found)


@pytest.fixture
def peers() -> Iterator[Peers]:
    with ExitStack() as undo:
        yield Peers(undo)
