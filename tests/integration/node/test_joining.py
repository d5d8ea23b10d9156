"""How a node comes to its manager, and what it says when it cannot."""

from __future__ import annotations

import socket
import time

import pytest

from manta.console.exit_codes import Exit
from manta.manager.auth.tokens import TokenAuthority, new_seed
from manta.node.errors import ConfigError, IdentityError, LaunchError, StateInUse
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE
from manta.transports.security.keys import KeyPair

CLUSTER = "lab"


def join(lab, token: str, name: str = "edge", **sections):
    identity = {"secured_token": token, "id": "random", **sections.pop("identity", {})}
    config = lab.config(name, identity=identity, **sections)
    return lab.start(config, lab.state(name))


def refusal(lab, token: str, name: str = "edge") -> str:
    join(lab, token, name)
    lab.wait_until(lambda: lab.finished)
    [(code, sentence)] = lab.finished
    assert code == Exit.DENIED
    status = lab.wait_for(lab.state(name), "refused")
    assert status.sentence == sentence
    assert not lab.state(name).identity_file.exists()
    return sentence


def test_a_token_makes_a_node_once(lab) -> None:
    api = lab.api()
    token = api.create_node_token(CLUSTER)
    node = join(lab, token)
    status = lab.wait_for(lab.state("edge"), "connected")
    assert api.get_node("edge").id == status.node_id
    node.stop()
    # From now on its own key is enough, whatever became of the token.
    again = lab.start(lab.config("edge"), lab.state("edge"))
    assert lab.wait_for(lab.state("edge"), "connected").node_id == status.node_id
    again.stop()
    lab.finished.clear()  # who is told that a node leaves may still let it drain
    assert "used up" in refusal(lab, token, "second")


def test_an_expired_token(lab) -> None:
    token = lab.manager.context.authority.issue(
        NODE_AUDIENCE, "cluster", now=time.time() - 2000, ttl=900
    )[0]
    said = refusal(lab, token)
    assert "expired" in said
    assert "`manta node token CLUSTER`" in said


def test_a_foreign_token_is_another_manager_s(lab) -> None:
    """Signed by another manager: the node looks for that one's key, and does not find it."""
    other = KeyPair.generate()
    foreign = TokenAuthority(new_seed(), other.public)
    token = foreign.issue(NODE_AUDIENCE, "cluster", now=time.time(), ttl=900)[0]
    join(lab, token)
    lab.wait_until(lambda: lab.finished)
    [(code, sentence)] = lab.finished
    assert code == Exit.UNREACHABLE
    assert "does not hold the key" in sentence
    assert lab.wait_for(lab.state("edge"), "wrong-key").sentence == sentence


def test_the_manager_s_bulk_port_is_no_port_for_nodes(lab) -> None:
    token = lab.api().create_node_token(CLUSTER)
    join(lab, token, network={"manager_port": int(lab.file.bulk.rpartition(":")[2])})
    status = lab.wait_for(lab.state("edge"), "denied")
    assert "not its port for nodes" in status.sentence
    assert "network.manager_host and manager_port" in status.sentence


def test_a_forged_token_of_this_manager(lab) -> None:
    forged = TokenAuthority(new_seed(), lab.file.public_key)
    token = forged.issue(NODE_AUDIENCE, "cluster", now=time.time(), ttl=900)[0]
    assert refusal(lab, token)


def test_a_user_s_token_is_told_before_anything_is_sent(lab) -> None:
    authority = lab.manager.context.authority
    token = authority.issue(USER_AUDIENCE, "me", now=time.time(), ttl=900)[0]
    with pytest.raises(IdentityError, match=r"not a node's token.*manta node token"):
        join(lab, token)


def test_a_token_over_another_key(lab) -> None:
    authority = lab.manager.context.authority
    stranger = KeyPair.generate().public
    token = authority.issue(NODE_AUDIENCE, "cluster", now=time.time(), ttl=900, bound_to=stranger)[
        0
    ]
    assert "key" in refusal(lab, token)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", r"no token and has not enrolled before: identity.secured_token is empty"),
        ("nonsense", r"not a Manta token"),
        ("a.b.c", r"not a Manta token"),
    ],
)
def test_no_token_or_none_that_can_be_read(lab, token: str, words: str) -> None:
    with pytest.raises(IdentityError, match=words):
        join(lab, token)


def test_an_alias_that_is_taken(lab) -> None:
    lab.node(1)
    token = lab.api().create_node_token(CLUSTER)
    config = lab.config(
        "twin", identity={"secured_token": token, "alias": "node-1", "id": "random"}
    )
    lab.start(config, lab.state("twin"))
    lab.wait_until(lambda: lab.finished)
    [(code, sentence)] = lab.finished
    assert code == Exit.REFUSED
    assert "node-1" in sentence


def test_a_token_of_another_manager_moves_the_node(lab) -> None:
    lab.node(1).stop()
    other = KeyPair.generate()
    token = TokenAuthority(new_seed(), other.public).issue(
        NODE_AUDIENCE, "cluster", now=time.time(), ttl=900
    )[0]
    config = lab.config("node-1", identity={"secured_token": token})
    lab.start(config, lab.state("node-1"))
    lab.wait_for(lab.state("node-1"), "wrong-key")


def test_a_removed_node_comes_back_with_a_new_token(lab) -> None:
    node = lab.node(1)
    api = lab.api()
    api.remove_node("node-1")
    lab.wait_until(lambda: lab.finished)
    node.stop()
    lab.finished.clear()
    token = api.create_node_token(CLUSTER)
    config = lab.config("node-1", identity={"secured_token": token, "id": "random"})
    lab.start(config, lab.state("node-1"))

    def statuses() -> list[str]:
        assert not lab.finished
        return [node.status for node in api.list_nodes(CLUSTER)]

    lab.wait_until(lambda: statuses() == ["CONNECTED"])


def test_a_host_name_that_nobody_knows_is_told_as_one(lab) -> None:
    config = lab.config("node-1", network={"manager_host": "manager.invalid"})
    with lab.start(config, lab.known(1)):
        status = lab.wait_for(lab.state("node-1"), "unknown-host")
    assert "The host name of manager.invalid:" in status.sentence.replace("tcp://", "")
    assert "is not known on this machine" in status.sentence


def test_a_manager_that_is_not_there_is_waited_for(lab) -> None:
    lab.stop_manager()
    node = lab.start(lab.config("node-1"), lab.known(1))
    status = lab.wait_for(lab.state("node-1"), "unreachable")
    assert "Nobody answers" in status.sentence
    assert "manager_port" in status.sentence
    lab.start_manager()
    lab.wait_for(lab.state("node-1"), "connected")
    node.stop()
    assert lab.state("node-1").read_status().state == "stopped"


def test_a_manager_that_does_not_hold_the_pinned_key(lab) -> None:
    state = lab.known(1)
    state.identity_file.write_text(
        state.identity_file.read_text().replace(lab.file.public_key, KeyPair.generate().public)
    )
    lab.start(lab.config("node-1"), state)
    status = lab.wait_for(state, "wrong-key", "unreachable", "silent")
    assert status.state == "wrong-key"


def test_somebody_who_is_no_manager_at_all(lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = lab.config("node-1", network={"manager_port": mute.getsockname()[1]})
        lab.start(config, lab.known(1))
        began = time.monotonic()
        status = lab.wait_for(lab.state("node-1"), "unreachable", "silent", "wrong-key", "busy")
        assert time.monotonic() - began < 7
        assert status.sentence


def test_a_second_daemon_on_one_state_folder(lab) -> None:
    lab.node(1)
    with pytest.raises(StateInUse, match=r"Another node daemon \(process \d+\) uses"):
        lab.start(lab.config("node-1"), lab.known(1))
    assert lab.state("node-1").read_status().state == "connected"


def test_a_dataset_that_is_not_there(lab) -> None:
    config = lab.config("node-1", datasets={"pictures": "/nowhere/at/all"})
    with pytest.raises(
        ConfigError, match=r"node-1.toml, line \d+: the dataset 'pictures' .* does not exist"
    ):
        lab.start(config, lab.known(1))


def test_an_operator_who_wants_a_sandbox_where_there_is_none(lab, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{lab.folder}/nothing.sock")
    monkeypatch.setenv("PATH", str(lab.folder))
    monkeypatch.setattr("manta.node.isolation.landlock.available", lambda: 0)
    config = lab.config("node-1", containers={"runner": "auto", "allow_unsandboxed": False})
    with pytest.raises(LaunchError, match="allow_unsandboxed is false"):
        lab.start(config, lab.known(1))
    config = lab.config("node-1", containers={"runner": "docker"})
    with pytest.raises(LaunchError, match=r"there is no container engine at unix://.*: start it"):
        lab.start(config, lab.known(1))
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    with pytest.raises(LaunchError, match="DOCKER_HOST is tcp://elsewhere:2375: a node needs"):
        lab.start(config, lab.known(1))
    config = lab.config("node-1", containers={"runner": "auto", "isolation": "bwrap"})
    least = (
        r'isolation is "bwrap", and tasks would run at the level "limits" here \(DOCKER.*\): let'
    )
    with pytest.raises(LaunchError, match=least):
        lab.start(config, lab.known(1))
    config = lab.config("node-1", containers={"runner": "auto"})
    assert lab.start(config, lab.known(1)).context.runner.names == ("limits",)


def test_an_identity_that_is_damaged(lab) -> None:
    state = lab.known(1)
    state.identity_file.write_text("{")
    with pytest.raises(IdentityError, match="is damaged"):
        lab.start(lab.config("node-1"), state)
