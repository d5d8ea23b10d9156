"""One rule for names, and one way in which they become names of files."""

from __future__ import annotations

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
