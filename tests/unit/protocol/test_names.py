"""One rule for names, and one way in which they become names of files."""

from __future__ import annotations

import re
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.apis import checks
from manta.apis.errors import InvalidArgument
from manta.apis.graph import unique_aliases
from manta.light import arguments
from manta.protocol.names import (
    COMPARED,
    MAX_FILE_NAME,
    MAX_NAME,
    file_name,
    file_names,
    is_name,
    meant,
    numbered,
)

texts = st.one_of(st.text(max_size=300), st.text("ab/%. ~", max_size=8))


@given(texts)
def test_tasks_and_users_follow_the_same_rule(text: str) -> None:
    try:
        light = arguments.tag(text) == text
    except ValueError:
        light = False
    try:
        sdk = checks.name("The tag", text) == text
    except InvalidArgument:
        sdk = False
    assert light == sdk == is_name(text)
    assert arguments.MAX_NAME == MAX_NAME


@given(texts)
def test_a_file_s_name_is_one(text: str) -> None:
    found = file_name(text)
    assert "/" not in found
    assert "\0" not in found
    assert not found.startswith(".")
    assert len(found.encode()) <= MAX_FILE_NAME


@given(texts, texts)
def test_different_names_are_different_files(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("loss", "loss"),
        ("größe 1", "größe 1"),
        ("value/eu", "value%2Feu"),
        ("100%", "100%25"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a\nb\0", "a%0Ab%00"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_what_a_file_is_called(name: str, file: str) -> None:
    assert file_name(name) == file


@given(st.lists(st.one_of(texts, st.text("aAé\u0301eK\u212a\u017fs. -", max_size=4)), unique=True))
def test_files_beside_each_other_differ_on_every_disk(names: list[str]) -> None:
    files = file_names(names)
    assert [*files] == names
    on_disk = {normalize("NFD", file).casefold() for file in files.values()}
    assert len(on_disk) == len(names)
    for file in files.values():
        assert file
        assert not {"/", "\\", "\0", ":"} & set(file)
        assert not file.startswith((".", "-"))
        assert not file.endswith((".", " "))
        assert len(file.encode()) <= MAX_FILE_NAME + 4


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["loss", "größe 1"], ["loss", "größe 1"]),
        (["CON", "nul.txt", "Com1", "lpt\u00b2", "aux ", "console"],
         ["%43ON", "%6Eul.txt", "%43om1", "%6Cpt\u00b2", "%61ux%20", "console"]),
        (["", "-rf", "..", "a. "], ["%", "%2Drf", "%2E%2E", "a.%20"]),
        (["Model", "model", "other"], ["Model~", "model~", "other"]),
        (["\u00e9", "e\u0301"], ["\u00e9~", "e\u0301~"]),
    ],
)  # fmt: skip
def test_what_files_beside_each_other_are_called(names: list[str], files: list[str]) -> None:
    found = [re.sub(r"~[0-9a-f]{16}$", "~", file) for file in file_names(names).values()]
    assert found == files


def test_long_names_differ_by_their_digest() -> None:
    one, other = file_name("é" * 199), file_name("é" * 200)
    assert one != other
    assert one.startswith("é" * 80)
    assert len(one.encode()) <= MAX_FILE_NAME


def test_a_number_at_the_end_of_a_long_name_leaves_it_a_name() -> None:
    assert numbered("a", 3) == "a_3"
    aliases = unique_aliases([("a" * MAX_NAME, False)] * 12)
    assert len({*aliases}) == 12
    assert all(map(is_name, aliases))


def test_what_was_meant_is_the_name_most_like_it() -> None:
    assert meant("acuracy", ["loss", "accuracy"]) == " Did you mean 'accuracy'?"
    assert meant("quite-another", ["loss", "accuracy"]) == meant("loss", []) == ""
    endless = (f"other-{number}" for number in iter(int, 1))
    meant("wrong" * MAX_NAME, endless)
    assert COMPARED < 10_000
