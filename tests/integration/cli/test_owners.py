"""An owner's policy, approvals and denials, by commands: of a real manager and a real node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from manta.console.exit_codes import Exit
from manta.testing import wait_until
from tests.support.lab import Lab
from tests.support.owners import Owner

pytestmark = pytest.mark.timeout(600)

POLICY = """\
[[rule]]
name = "the yearly report"
users = ["admin@localhost"]
datasets = ["ward"]
modules = ["sums"]
approve = "ask"
results = ["total"]
most = 1
"""
SLEEPS = "import time; time.sleep(100)"


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    folder = tmp_path_factory.mktemp("o")
    np = pytest.importorskip("numpy")
    np.save(folder / "ward.npy", np.arange(6.0))
    owner = Owner(Lab(folder / "h"), folder)
    lab = owner.lab
    owner.policy.write_text(POLICY)
    try:
        lab.sign_in(lab.start().stdout)
        lab("cluster", "create", "lab")
        made = ("--manager-host", "127.0.0.1", "--manager-port", lab.ports[0], "--id", "alias")
        rules = ("--alias", "node-3", "--policy", owner.policy, "--allow-unsandboxed")
        owner("config", "init", "ward", *made, *rules)
        owner.describe("2026-11")
        owner("start", "ward", "--background", token=lab("node", "token", "lab"))
        yield owner
    finally:
        owner.attempt("stop", "ward")
        lab.attempt("manager", "stop")


@pytest.fixture(autouse=True)
def _nothing_runs(owner: Owner) -> Iterator[None]:
    yield
    owner.policy.write_text(POLICY)
    listed = owner.lab.attempt("ps", "--json")
    for one in json.loads(listed.stdout) if listed.returncode == 0 else ():
        if one["status"] in ("ACTIVE", "PENDING"):
            owner.lab("stop", one["swarm_id"])


def test_the_story_of_an_owner_and_a_researcher(owner: Owner) -> None:
    """Refused and told why, asked for, approved for one digest, run, changed, asked for again."""
    owner.policy.write_text(POLICY.replace('"ask"', '"deny"'))
    tested = ("policy", "test", "ward", "--user", "admin@localhost", "--module", "sums")
    wait_until(lambda: owner.attempt(*tested, "--dataset", "ward").returncode == Exit.DENIED)

    refused = owner.ended(owner.deploy())
    assert refused["status"] == "FAILED"
    quoted = 'rule "the yearly report" (policy.toml, line 1): approve = "deny"'
    assert quoted in refused["reason"]
    assert quoted in owner.lab("explain", refused["swarm_id"])

    owner.policy.write_text(POLICY)
    told = owner.attempt(*tested, "--dataset", "ward", "--json")
    assert json.loads(told.stdout)["verdict"] == "ask"
    first = owner.deploy()
    asked = owner.asked(first)
    mine = json.loads(owner.lab("whoami", "--json"))["fingerprint"]
    assert (asked["user"], asked["key"], asked["key_is_known"]) == ("admin@localhost", mine, False)
    assert asked["description"] == "Sums of the ward's table, for the yearly report."
    assert asked["datasets"] == ["ward"]
    assert asked["found"]["datasets"] == ["ward"]
    assert asked["found"]["results"] == ["total"]
    assert any('add("total"' in line for line in asked["diff"])
    waits = re.compile(r"sums waits for the owner of node-3 since \d")
    wait_until(lambda: waits.search(owner.lab("explain", first)))
    assert waits.search(owner.swarm(first)["reason"])
    assert owner.running() == []

    owner("approve", "ward", asked["request"], "--until", "7d", "--yes")
    assert owner.ended(first)["status"] == "COMPLETED"
    again = owner.ended(owner.deploy())  # the same code, of another deployment
    assert again["status"] == "COMPLETED"

    second = owner.asked(owner.deploy("x = 1"))
    assert second["request"] != asked["request"]
    assert second["key_is_known"]
    assert second["approved_before"] == asked["digest"]
    assert [line for line in second["diff"] if line[:1] in "+-"][2:] == ["-    pass", "+    x = 1"]
    owner("deny", "ward", second["request"])
    denied = owner.ended(second["swarm_id"])
    assert "the owner of this node has denied it" in denied["reason"]

    acts = [one["act"] for one in owner.acts()]
    for act in ("attempt-denied", "approval-asked", "approved", "denied", "attempt-began"):
        assert act in acts
    traced(owner, first, asked, mine)


def traced(owner: Owner, swarm: str, asked: dict[str, Any], key: str) -> None:
    """What a data-protection officer does with a published result: verifies both logs, and finds
    code, data and people."""
    # Each log, also against what the other side keeps of it.
    exported = {"node": owner("audit", "export", "ward")}
    exported["manager"] = owner.lab("manager", "audit", "export")
    anchors = {side: owner.folder / f"{side}.jsonl" for side in exported}
    for side, path in anchors.items():
        path.write_text(exported[side])
    of_node = json.loads(
        owner("audit", "verify", "ward", "--anchors", anchors["manager"], "--json")
    )
    mine = owner.lab("manager", "audit", "verify", "--anchors", anchors["node"], "--json")
    for verdict in (of_node, json.loads(mine)):
        assert (verdict["intact"], verdict["faults"]) == (True, [])
        assert verdict["anchors"] >= 1

    # From the result to code and data.
    found = json.loads(owner.lab("explain", swarm, "--result", "total", "--json"))
    [made] = found["made"]
    used = {"name": "ward", "digest": owner.digest, "version": "2026-11"}
    assert (made["alias"], made["node_alias"], made["module"]) == ("sums", "node-3", "sums")
    assert made["digest"] == asked["digest"]
    assert [dict(one) for one in made["datasets"]] == [used]
    assert found["before"] == []
    shown = owner.lab("explain", swarm, "--result", "total")
    assert f"dataset ward, version 2026-11, digest {owner.digest[:12]}" in shown

    # From there to people: who asked, by which key, who allowed it, and what left.
    ours = [json.loads(line) for line in exported["node"].splitlines()]
    of_swarm = [one for one in ours if one["about"].get("swarm_id") == swarm]
    [began] = [one for one in of_swarm if one["act"] == "attempt-began"]
    assert (began["who"], began["about"]["key"]) == ("admin@localhost", key)
    assert began["about"]["digest"] == made["digest"]
    [data] = began["about"]["datasets"]
    assert data == {**used, "path": str(owner.folder / "ward.npy")}
    approved = [one for one in ours if one["act"] == "approved"]
    assert any(
        one["about"]["request"] == asked["request"] and one["about"]["by"] for one in approved
    )
    left = [one["about"] for one in of_swarm if one["act"] == "value-left"]
    assert [(one["what"], one.get("tag")) for one in left] == [
        ("result", "total"),
        ("output", None),
    ]
    theirs = [json.loads(line) for line in exported["manager"].splitlines()]
    sent = [one for one in theirs if one["act"] == "send-swarm" and swarm in json.dumps(one)]
    assert [one["who"] for one in sent] == ["admin@localhost"]


def test_what_is_said_of_a_dataset_is_listed_and_refreshed_without_a_restart(owner: Owner) -> None:
    def listed() -> dict[str, Any]:
        return dict(json.loads(owner.lab("node", "show", "node-3", "--json"))["datasets"]["ward"])

    assert (listed()["version"], listed()["rows"]) == ("2026-11", 6)
    owner.describe("2026-12")
    try:
        assert "dataset" in owner("reload", "ward")
        wait_until(lambda: listed()["version"] == "2026-12")
        assert "version 2026-12" in owner.lab("node", "show", "node-3")
    finally:
        owner.describe("2026-11")
        owner("reload", "ward")
        wait_until(lambda: listed()["version"] == "2026-11")


def test_what_is_revoked_ends_at_once_and_is_denied_from_then_on(owner: Owner) -> None:
    id_ = owner.deploy(SLEEPS)
    asked = owner.asked(id_)
    owner("approve", "ward", asked["request"], "--yes")
    wait_until(owner.running)
    owner("revoke", "ward", asked["request"])
    ended = owner.ended(id_)
    assert "the owner of this node has denied it" in ended["reason"]
    [end] = [
        one
        for one in owner.acts()
        if one["act"] == "attempt-ended" and one["about"]["swarm_id"] == id_
    ]
    assert end["about"]["status"] == "REFUSED"
    after = owner.ended(owner.deploy(SLEEPS))
    assert "the owner of this node has denied it" in after["reason"]


def test_once_is_for_the_swarm_that_asks(owner: Owner) -> None:
    more = "once = True"
    asked = owner.asked(owner.deploy(more))
    owner("approve", "ward", asked["request"], "--once", "--yes")
    assert owner.ended(asked["swarm_id"])["status"] == "COMPLETED"
    assert owner.asked(owner.deploy(more))["request"] == asked["request"]


def test_what_may_not_leave_is_an_error_in_the_task_and_is_recorded(owner: Owner) -> None:
    asked = owner.asked(owner.deploy('world.results.add("rows", rows)'))
    assert asked["found"]["results"] == ["rows", "total"]
    assert asked["leaves"].startswith("total; up to 1 values of each instance in an iteration")
    owner("approve", "ward", asked["request"], "--yes")
    ended = owner.ended(asked["swarm_id"])
    assert ended["status"] == "FAILED"
    assert "'rows' is not among those that may leave" in ended["reason"]
    [stopped] = [one for one in owner.acts() if one["act"] == "value-stopped"]
    assert stopped["about"]["tag"] == "rows"


def test_a_failure_tells_no_value_where_what_leaves_is_limited(owner: Owner) -> None:
    asked = owner.asked(owner.deploy("raise ValueError(f'not {rows}')"))
    assert "of failures only their kind" in asked["leaves"]
    owner("approve", "ward", asked["request"], "--yes")
    ended = owner.ended(asked["swarm_id"])
    assert ended["status"] == "FAILED"
    told = owner.lab("explain", ended["swarm_id"])
    for text in (ended["reason"], told):
        assert "ValueError: the owner of its node holds back what that says" in text
        assert "not [0." not in text


def test_of_what_code_prints_only_the_number_of_lines_leaves(owner: Owner) -> None:
    asked = owner.asked(owner.deploy("print(rows, 'secret'); world.progress(0.123, 'secret')"))
    assert asked["leaves"].endswith("of log lines only their number")
    assert asked["found"]["prints"]
    owner("approve", "ward", asked["request"], "--yes")
    assert owner.ended(asked["swarm_id"])["status"] == "COMPLETED"
    told = owner.lab("logs", asked["swarm_id"])
    assert "The owner of this node holds back what tasks write" in told
    assert "lines and messages of progress that were held back: 2" in told
    assert "secret" not in told + owner.lab("explain", asked["swarm_id"])
    [end] = [
        one
        for one in owner.acts()
        if one["act"] == "attempt-ended" and one["about"]["swarm_id"] == asked["swarm_id"]
    ]
    assert end["about"]["withheld"] == 2


def test_what_waits_survives_restarts_and_a_typo_in_the_policy_opens_nothing(owner: Owner) -> None:
    """Comes last: what a test has started ends with it."""
    id_ = owner.deploy("restarted = True")
    asked = owner.asked(id_)
    owner.lab("manager", "stop")
    try:
        owner.lab.start()
        wait_until(lambda: "waits for the owner" in owner.swarm(id_)["reason"])
        owner("stop", "ward")
        owner("start", "ward", "--background")
        back = owner.asked(id_)
        assert (back["request"], back["since"]) == (asked["request"], asked["since"])
        owner("approve", "ward", asked["request"], "--yes")
        assert owner.ended(id_)["status"] == "COMPLETED"

        owner.policy.write_text(POLICY.replace("approve", "aprove"))
        told = owner.attempt("policy", "show", "ward")
        assert told.returncode == Exit.LOCAL
        flaw = "policy.toml, line 6: there is no key 'aprove'; did you mean 'approve'?"
        assert flaw in told.stderr
        ended = owner.ended(owner.deploy("typo = True"))
        assert ended["status"] == "FAILED"
        assert "there is no key 'aprove'" in ended["reason"]
        owner("stop", "ward")
        refused = owner.attempt("start", "ward", "--background")
        assert refused.returncode == Exit.LOCAL
        assert flaw in refused.stderr
    finally:
        owner.attempt("stop", "ward")
        owner.lab.attempt("manager", "stop")
