"""The messages that docs/troubleshooting.md quotes, provoked: each is what a user then reads.

Those with a console block on the page are provoked there (`test_documents.py`), some others where
ELSEWHERE says.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manta import Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import MantaError
from manta.node.errors import NodeError
from manta.transports.security.keys import KeyPair
from tests.integration.node.conftest import CLUSTER, HOST, Lab, port
from tests.integration.node.test_doctor import denied, unreachable, wrong_key
from tests.support.lab import manta
from tests.unit.test_troubleshooting import PAGE, VARIES, quoted

ELSEWHERE = {
    "it has no stacks to show": "unit/node/test_stack_reads.py",
    "holds the stacks of tasks back": "integration/swarms/test_bundles.py",
    "holds the stacks of this task back": "unit/node/test_owner_limits.py",
    "another major version of the protocol": "integration/upgrades/test_versions.py",
    "it may have been carried out": "integration/faults/test_manager_away.py",
    "Another daemon holds this node": "integration/node/test_two_daemons.py",
    "had begun, and its node has lost what it knew of it": (
        "integration/faults/test_damaged_journals.py"
    ),
    "have it receive more, or send less": "integration/swarms/test_floods.py",
    "; no link to ": "integration/node/test_direct.py",
    "of values that tasks send to each other, of at most": "integration/node/test_full_disk.py",
    "the node's plane, through which it exchanges": "integration/swarms/test_direct.py",
    "collectives ahead of": "unit/manager/swarm/test_exchange.py",
    "broadcasts, contributions and checkpoints": "unit/manager/swarm/test_exchange.py",
    "has no room for a collective": "integration/node/test_plane_outcomes.py",
    "before instances on another node have": "integration/node/test_plane_crowds.py",
    "What one node is to tell another of collective": "integration/node/test_plane_crowds.py",
    "taken what it was told of the": "integration/node/test_plane_crowds.py",
    "cannot make a sandbox": "integration/isolation/test_life.py",
    "and tasks would run at the level": "integration/node/test_joining.py",
    "is kept in memory alone": "integration/node/test_plane_lasting.py",
    "the manager has yet to take": "unit/node/test_journal.py",
    "the manager has taken what": "integration/swarms/test_barriers.py",
    "leads out of it, to": "integration/tasks/test_node_local.py",
    "is false, as it is unless it is set": "integration/node/test_config_keys.py",
    "as others had before, and is not": "integration/manager/test_keeper.py",
    "is being started": "integration/manager/test_keeper.py",
    "strangers cut, after whom too many others came: ": "integration/transports/test_crowds.py",
    "with this address from where you are": "unit/manager/auth/test_limits.py",
    "who made it may not enrol": "integration/manager/test_entry.py",
    "can be changed by other users": "unit/apis/test_profiles.py",
    "is sealed with a passphrase: set": "unit/apis/test_sealing.py",
    "for more (manta quota set ": "integration/cli/test_users.py",
    "It is in effect, and not stored yet: ": "integration/manager/test_full_disk.py",
    "A cluster on this machine needs": "unit/cli/test_local.py",  # it takes a lean installation
}
"""Words of a message -> the tests that look for them."""
TESTS = Path(__file__).parents[2]


class Place:
    """A manager and two nodes, of which the first has a dataset."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.lab = Lab(folder, undo, 2)
        undo.callback(self.lab.stop_manager)
        (folder / "digits.csv").write_text("1,2\n")
        self.lab.node(1, datasets={"digits": str(folder / "digits.csv")})
        self.lab.node(2)
        self.api = self.lab.api()
        self.folder = folder

    def refusal(self, call: Callable[[], object]) -> str:
        with pytest.raises(MantaError) as refused:
            call()
        return str(refused.value)

    def swarm(self, code: str = "def main():\n    pass\n", **arguments: Any) -> Swarm:
        return self.lab.swarm(code, **arguments)

    def failure(self, code: str, **arguments: Any) -> str:
        """What the task's error says of a swarm that fails by it."""
        program = "from manta.light import Local, World\ndef main():\n    world = World()\n    "
        ran = self.lab.run(self.api, self.swarm(program + code, **arguments), "FAILED")
        return "\n".join(error.sentence for error in self.api.collect_errors(ran))

    def stranger(self, where: int, key: str) -> str:
        """What a user's API says of somebody who is not the manager."""
        target = Target(HOST, where, "test", server_key=key)
        with UserAPI.over(Session(target, self.lab.admin)) as api:
            return self.refusal(api.list_clusters)

    def node(self, name: str, where: int, manager_key: str) -> str:
        """What a node says that knows a manager of that key there."""
        state = self.lab.state(name)
        KeyPair.generate().save(state.key_file)
        state.identity_file.write_text(json.dumps({"manager_key": manager_key}))
        state.identity_file.chmod(0o600)
        config = self.lab.config(name, network={"manager_port": where})
        with self.lab.start(config, state):
            words = ("unreachable", "denied", "wrong-key")
            return self.lab.wait_for(state, *words).sentence

    def joining(self, name: str, identity: dict[str, Any]) -> str:
        """What a node says that enrols."""
        state = self.lab.state(name)
        with self.lab.start(self.lab.config(name, identity=identity), state):
            return self.lab.wait_for(state, "connected", "refused").sentence

    def run(self, text: str) -> str:
        """What `manta run` says of that file."""
        path = self.folder / "swarm.py"
        path.write_text(
            f"from manta import Swarm, Task\nCODE = 'def main():\\n    pass\\n'\n{text}"
        )
        return manta("run", path, MANTA_HOME=self.folder / "home").stderr


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as undo:
        yield Place(tmp_path_factory.mktemp("place"), undo)


Provoke = Callable[[Place], str]
PROVOKED: dict[str, Provoke] = {}


def says(words: str) -> Callable[[Provoke], Provoke]:
    (message,) = [message for message in quoted() if words in message]

    def register(provoke: Provoke) -> Provoke:
        PROVOKED[message] = provoke
        return provoke

    return register


# Reaching the manager.


@says("No manager answers at")
def nobody_there(place: Place) -> str:
    with unreachable(place.lab) as (where, key):
        return place.stranger(where, key)


@says("accepts connections but says nothing")
def somebody_who_says_nothing(place: Place) -> str:
    with socket.create_server((HOST, 0)) as mute:
        return place.stranger(mute.getsockname()[1], place.lab.file.public_key)


@says("does not hold the manager's key")
def somebody_else(place: Place) -> str:
    with wrong_key(place.lab) as (_, key):
        return place.stranger(port(place.lab.file.users), key)


@says("A manager already runs in")
def a_second_manager(place: Place) -> str:
    return manta("manager", "start", "--home", place.folder / "manager").stderr


# Writing a swarm.


@says("defines no Swarm")
def no_swarm(place: Place) -> str:
    return place.run("")


@says("defines several swarms")
def two_swarms(place: Place) -> str:
    return place.run("class One(Swarm): pass\nclass Two(Swarm): pass\n")


@says("form a cycle")
def a_circle(place: Place) -> str:
    class Circle(Swarm):
        def execute(self) -> Task:
            code = "def main():\n    pass\n"
            a, b = Task(code, alias="a"), Task(code, alias="b")
            return a(b(a))

    return place.refusal(lambda: place.api.check_swarm(CLUSTER, Circle()))


@says("Two tasks have the alias")
def an_alias_twice(place: Place) -> str:
    class Twins(Swarm):
        def execute(self) -> list[Task]:
            code = "def main():\n    pass\n"
            return [Task(code, alias="twin")(), Task(code, alias="twin")()]

    return place.refusal(lambda: place.api.check_swarm(CLUSTER, Twins()))


# Placement.


@says("no node that it may run on has the dataset")
def a_dataset_of_nobody(place: Place) -> str:
    swarm = place.swarm(datasets=["pictures"])
    return place.refusal(lambda: place.api.deploy_swarm(CLUSTER, swarm))


@says("has no dataset … (it has …)")
def a_node_without_the_dataset(place: Place) -> str:
    plan = place.api.check_swarm(CLUSTER, place.swarm(datasets=["digits"]))
    (no,) = [verdict for verdict in plan.verdicts if not verdict.accepted]
    return f"{no.node_alias} {no.reason}"


# Tasks.


@says("This task has no dataset")
def a_dataset_that_was_not_declared(place: Place) -> str:
    return place.failure("Local().get_dataset('digits')", method="any")


@says("has been set in this swarm")
def a_global_of_nobody(place: Place) -> str:
    return place.failure("world.globals['model']", method="any")


@says("Nobody has broadcast")
def a_broadcast_of_nobody(place: Place) -> str:
    return place.failure("world.get_broadcast('news')", method="any")


@says("No message … has come")
def a_message_of_nobody(place: Place) -> str:
    return place.failure("world.rank == 0 and world.receive_from_node('node-2', 'news')")


@says("… waits for … in vain.")
def an_instance_that_does_not_take_part(place: Place) -> str:
    return place.failure("world.rank == 0 and world.all_reduce(1.0)")


# Results.


@says("has no results of tag")
def a_tag_of_nobody(place: Place) -> str:
    ran = place.lab.run(
        place.api,
        place.swarm("from manta.light import *\ndef main():\n    World().results.add('a', 1)"),
    )
    return place.refusal(lambda: place.api.get_swarm_results(ran, "b"))


@says("wait longer, or see explain_swarm")
def a_swarm_that_goes_on(place: Place) -> str:
    runs = place.api.deploy_swarm(CLUSTER, place.swarm("import time\ndef main(): time.sleep(300)"))
    try:
        return place.refusal(lambda: place.api.wait_swarm(runs, timeout=0.1))
    finally:
        place.api.stop_swarm(runs, force=True)


@says("which is not installed: pip install 'manta-swarm[data]'")
def a_package_that_is_not_there(place: Place) -> str:
    ran = place.lab.run(place.api, place.swarm(method="any"))
    results = place.api.get_swarm_results(ran)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)  # as Python has it where there is none
        return place.refusal(results.to_pandas)


# Nodes.


@says("Nobody answers at")
def a_node_with_nobody_there(place: Place) -> str:
    with unreachable(place.lab) as (where, key):
        return place.node("alone", where, key)


@says("denies an unknown key")
def a_node_at_the_port_for_large_values(place: Place) -> str:
    token = place.api.create_node_token(CLUSTER)
    identity = {"secured_token": token, "id": "random"}
    network = {"manager_port": port(place.lab.file.bulk)}
    config = place.lab.config("bulky", identity=identity, network=network)
    with place.lab.start(config, place.lab.state("bulky")):
        return place.lab.wait_for(place.lab.state("bulky"), "denied").sentence


@says("is the manager's port for users")
def a_node_at_the_port_for_users(place: Place) -> str:
    network = {"manager_port": port(place.lab.file.users)}
    token = place.api.create_node_token(CLUSTER)
    identity = {"secured_token": token, "id": "random"}
    with place.lab.start(
        place.lab.config("guest", identity=identity, network=network), place.lab.state("guest")
    ):
        return place.lab.wait_for(place.lab.state("guest"), "connected").sentence


@says("This token is used up")
def a_token_that_has_served(place: Place) -> str:
    token = place.api.create_node_token(CLUSTER)
    return [place.joining(name, {"secured_token": token, "id": "random"}) for name in "ab"][1]


@says("is taken by another node")
def an_alias_of_another_node(place: Place) -> str:
    token = place.api.create_node_token(CLUSTER)
    return place.joining("twin", {"secured_token": token, "id": "random", "alias": "node-1"})


@says("is mapped to")
def a_dataset_that_is_not_there(place: Place) -> str:
    with pytest.raises(NodeError) as refused:
        place.lab.start(
            place.lab.config("bare", datasets={"gone": "/nowhere"}), place.lab.state("bare")
        )
    return str(refused.value)


@says("denies this node's key")
def a_node_that_is_not_admitted(place: Place) -> str:
    with denied(place.lab) as (where, key):
        return place.node("unwanted", where, key)


@says("is not this node's manager")
def a_node_of_another_manager(place: Place) -> str:
    with wrong_key(place.lab) as (where, key):
        return place.node("astray", where, key)


def test_what_is_said_is_what_the_page_quotes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.apis.connect.session.FIRST_CONTACT", 5.0)
    wrong = {}
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(somebody_who_says_nothing, place)
        for message, provoke in PROVOKED.items():
            said = slow.result if provoke is somebody_who_says_nothing else partial(provoke, place)
            if not is_quoted(message, text := said()):
                wrong[message] = text
    assert not wrong, "\n".join(f"{quoted}\n  is now: {said}" for quoted, said in wrong.items())


def is_quoted(message: str, text: str) -> bool:
    message = message.removesuffix(".")  # of a task's sentence, its place comes before that
    return bool(re.search(".*".join(map(re.escape, message.split(VARIES))), text, re.DOTALL))


def test_all_that_the_page_quotes_is_provoked_somewhere() -> None:
    """Here, in a console block of the page, or elsewhere as named above."""
    left = set(quoted()) - set(PROVOKED)
    entries = {entry.splitlines()[0]: entry for entry in PAGE.read_text().split("\n### ")[1:]}
    for heading, entry in entries.items():
        if "```console" in entry:
            left -= {message for message in left if message in heading}
    for words, tests in ELSEWHERE.items():
        assert words in (TESTS / tests).read_text(), tests
        left -= {message for message in left if words in message}
    assert left == set()
