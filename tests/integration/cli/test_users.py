"""Users and roles from the command line, and what a user without the right is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from manta.console.exit_codes import Exit
from tests.support.lab import Lab, manta

PASSWORD = "correct horse"


class Person:
    """Someone with a home of his own, signed in to the lab's manager."""

    def __init__(self, lab: Lab, home: Path, email: str, password: str = PASSWORD) -> None:
        self.where = {"MANTA_HOME": home, "MANTA_PORT": lab.users}
        self.key = lab.key()
        signed_in = self.sign_in(email, password)
        assert signed_in.returncode == 0, signed_in.stderr

    def sign_in(self, email: str, password: str) -> CompletedProcess[str]:
        options = ("--email", email, "--password-stdin", "--server-key", self.key)
        return manta("sign-in", *options, said=password, **self.where)

    def attempt(self, *arguments: object, said: str = "") -> CompletedProcess[str]:
        return manta(*arguments, said=said, **self.where)

    def at(self, home: Path) -> Person:
        """The same at another machine, not signed in there."""
        there = copy(self)
        there.where = {**self.where, "MANTA_HOME": home}
        return there

    def __call__(self, *arguments: object, said: str = "") -> str:
        done = self.attempt(*arguments, said=said)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        started = lab.start()
        assert started.returncode == 0, started.stderr
        lab.sign_in(started.stdout)
        lab("cluster", "create", "red")
        lab("cluster", "create", "blue")
        yield lab
    finally:
        lab.attempt("manager", "stop")


@pytest.fixture
def ada(lab: Lab, tmp_path: Path) -> Iterator[Person]:
    made = lab.attempt("user", "add", "ada@example.org", "--password-stdin", said=PASSWORD)
    assert made.returncode == 0, made.stderr
    yield Person(lab, tmp_path, "ada@example.org")
    lab.attempt("user", "rm", "ada@example.org")


def test_a_user_sees_and_does_what_his_role_allows(lab: Lab, ada: Person) -> None:
    assert json.loads(ada("cluster", "list", "--json")) == []
    hidden = ada.attempt("node", "list", "red")
    assert hidden.returncode == Exit.NOT_FOUND
    lab("role", "grant", "ada@example.org", "viewer", "--cluster", "red")
    assert [c["name"] for c in json.loads(ada("cluster", "list", "--json"))] == ["red"]
    refused = ada.attempt("node", "token", "red")
    assert refused.returncode == Exit.DENIED
    assert "viewer" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    lab("role", "grant", "ada@example.org", "operator", "--cluster", "red")
    assert ada("node", "token", "red").strip()
    assert ada.attempt("node", "token", "blue").returncode == Exit.NOT_FOUND
    lab("role", "revoke", "ada@example.org", "--cluster", "red")
    assert json.loads(ada("cluster", "list", "--json")) == []


def test_users_are_the_administrator_s(lab: Lab, ada: Person) -> None:
    me = json.loads(ada("user", "show", "--json"))
    assert (me["email"], me["admin"], me["grants"]) == ("ada@example.org", False, [])
    for command in ("user list", "user rm admin@localhost", "role create x cluster.read"):
        assert ada.attempt(*command.split()).returncode == Exit.DENIED, command
    emails = [user["email"] for user in json.loads(lab("user", "list", "--json"))]
    assert {"ada@example.org", "admin@localhost"} <= set(emails)
    twice = lab.attempt("user", "add", "ada@example.org", "--password-stdin", said=PASSWORD)
    assert twice.returncode == Exit.REFUSED
    assert lab.attempt("user", "rm", "nobody@example.org").returncode == Exit.NOT_FOUND
    unknown = lab.attempt("role", "grant", "ada@example.org", "kng", "--cluster", "red")
    assert unknown.returncode == Exit.NOT_FOUND
    assert "'kng'" in unknown.stderr


def test_tokens_that_an_administrator_revokes_end_at_once(lab: Lab, ada: Person) -> None:
    for command in ("tree", "token revoke admin@localhost --yes"):
        refused = ada.attempt(*command.split())
        assert refused.returncode == Exit.DENIED, command
        assert "administrator" in refused.stderr
    assert json.loads(ada("user", "show", "--json"))["email"] == "ada@example.org"
    said = lab("token", "revoke", "ada@example.org", "--yes")
    assert said == "Revoked all tokens of ada@example.org."
    assert ada.attempt("ps").returncode == Exit.DENIED
    assert lab("ps", "--json") == "[]"  # nobody else's
    assert lab.attempt("token", "revoke", "nobody@x.org", "--yes").returncode == Exit.NOT_FOUND


def test_a_role_of_one_s_own(lab: Lab, ada: Person) -> None:
    lab("role", "create", "watcher", "cluster.read", "node.read")
    try:
        roles = {role["name"]: role for role in json.loads(lab("role", "list", "--json"))}
        assert {"owner", "operator", "researcher", "viewer", "watcher"} <= roles.keys()
        assert roles["watcher"]["rights"] == ["cluster.read", "node.read"]
        lab("role", "grant", "ada@example.org", "watcher", "--cluster", "red")
        assert ada("node", "list", "red")
        assert ada.attempt("node", "token", "red").returncode == Exit.DENIED
    finally:
        lab("role", "revoke", "ada@example.org", "--cluster", "red")
        lab("role", "rm", "watcher")


def test_who_creates_a_cluster_owns_it(lab: Lab, ada: Person) -> None:
    ada("cluster", "create", "green")
    me = json.loads(ada("user", "show", "--json"))
    assert [grant["role"] for grant in me["grants"]] == ["owner"]
    ada("cluster", "rm", "green", "--yes")


def test_passwords_tokens_and_the_end_of_both(lab: Lab, ada: Person) -> None:
    ada("user", "passwd", "--password-stdin", said=f"{PASSWORD}\nanother horse\n")
    assert ada.sign_in("ada@example.org", PASSWORD).returncode == Exit.DENIED
    assert ada.sign_in("ada@example.org", "another horse").returncode == 0
    ada("token", "rotate")
    assert ada("user", "show")
    assert "Signed out" in ada("sign-out")
    gone = ada.attempt("user", "show")
    assert gone.returncode == Exit.DENIED
    assert len(gone.stderr.splitlines()) == 1
    assert ada.sign_in("ada@example.org", "another horse").returncode == 0
    lab("user", "rm", "ada@example.org")
    assert ada.attempt("cluster", "list").returncode == Exit.DENIED


def test_a_bad_server_key_is_said_before_the_password_is_asked_for(ada: Person) -> None:
    options = ("--email", "ada@example.org", "--server-key", "short")
    refused = ada.attempt("sign-in", *options)
    assert refused.returncode == Exit.USAGE
    assert "server_key" in refused.stderr
    assert "Password" not in refused.stdout + refused.stderr


def test_a_token_for_another_machine(ada: Person, tmp_path: Path) -> None:
    elsewhere = ada.at(tmp_path / "elsewhere")
    key = elsewhere("token", "key").strip()
    made = ada("token", "create", "--for-key", key).strip()
    assert "Signed in to" in elsewhere("token", "use", said=made)
    assert json.loads(elsewhere("user", "show", "--json"))["email"] == "ada@example.org"
    third = ada.at(tmp_path / "third")
    assert "bound to another key" in third.attempt("token", "use", said=made).stderr
    typed = ada.attempt("token", "create", "--for-key", "short")
    assert "The key of the other machine is not a CURVE key" in typed.stderr


def test_quotas_are_shown_set_and_refused_in_a_sentence(lab: Lab, ada: Person) -> None:
    mine = {one["name"]: one for one in json.loads(ada("quota", "--json"))}
    assert (mine["clusters"]["used"], mine["clusters"]["limit"]) == (0, 20)
    assert mine["results"]["used"] is None
    lab("quota", "set", "clusters", "1", "--user", "ada@example.org")
    lab("quota", "set", "blob-bytes", "2.5 GiB", "--role", "user")
    ada("cluster", "create", "own")
    refused = ada.attempt("cluster", "create", "another")
    assert refused.returncode == Exit.REFUSED
    assert refused.stderr == (
        "Error: The user ada@example.org has 1 clusters and asks for 1 more, and the quota "
        "clusters is 1 (set for the user): delete one (manta cluster rm), or ask an administrator "
        "for more (manta quota set clusters).\n"
    )
    table = ada("quota")
    assert re.search(r"blob-bytes +0 B +2.5 GiB +set for the role user", table)
    assert ada("quota", "show", "--cluster", "own").count("\n") == 13
    denied = ada.attempt("quota", "set", "clusters", "9", "--user", "ada@example.org")
    assert denied.returncode == Exit.DENIED
    assert ada.attempt("quota", "--user", "admin@localhost").returncode == Exit.DENIED
    wrong = lab.attempt("quota", "set", "clusters", "many", "--role", "user")
    assert "limit is 'many'" in wrong.stderr
    assert lab.attempt("quota", "set", "clusters", "9").returncode == Exit.REFUSED
    lab("quota", "set", "blob-bytes", "default", "--role", "user")
    ada("cluster", "rm", "own", "--yes")
