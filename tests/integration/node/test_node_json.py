"""`--json` of `manta_node`: docs/json.md is what every command prints."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from manta.console.exit_codes import Exit
from manta.node.cli.main import cli
from manta.node.link.sentences import HELD
from manta.node.policy.consent import Asked, Subject
from manta.node.policy.records import AskedRecords, OwnerRecords
from manta.transports.errors import DownReason
from tests.integration.cli.test_json import DOCUMENT, leaves, nested, parsed, table
from tests.integration.node.conftest import Command, port

HEADING = "## manta_node\n"
MAKES = """
import os
from manta.light import World

def main():
    World().results.add("large", os.urandom(2 << 20))
"""


class Shell:
    """Runs commands with --json, and keeps what each printed."""

    def __init__(self, manta_node: Command, token: str) -> None:
        self.printed: dict[str, list[Any]] = {}
        self._manta_node = manta_node
        self._token = token

    def __call__(self, row: str, *arguments: object, ok: int = 0, **variables: str) -> list[Any]:
        words = [word for word in row.split() if word != "N"]
        variables = {"MANTA_NODE_TOKEN": self._token, **variables}
        done = self._manta_node(*words, *arguments, "--json", **variables)
        assert done.returncode == ok, (words, done.stdout, done.stderr)
        found = parsed(row, table(HEADING)[row][0], done.stdout)
        self.printed.setdefault(row, []).extend(found)
        return found


def test_what_is_printed_is_what_is_documented(lab, manta_node: Command) -> None:
    documented = table(HEADING)
    assert set(leaves(cli)) | {
        "cluster N",
        "approve --yes",
        "results --delete",
        "status --all",
    } == set(documented)
    shell = Shell(manta_node, lab.api().create_node_token("lab", uses=4))
    where = ("--manager-host", "127.0.0.1", "--manager-port", port(lab.file.nodes))
    made = (*where, "--allow-unsandboxed", "--id", "random")
    for name in ("edge", "box-1", "box-2", "gone"):
        shell("config init", name, *made)
    shell("config list")
    shell("config show", "edge")
    shell("config validate", "edge")
    append = "import sys; open(sys.argv[1], 'a').write('[labels]\\nroom = \"b\"\\n')"
    shell("config edit", "edge", VISUAL=f"{sys.executable} -c {json.dumps(append)}")
    shell("config delete", "gone", "--yes")
    wrong = manta_node.home / "nodes" / "wrong.toml"
    wrong.write_text("[network]\nmanager_prot = 1\n")
    (flawed,) = shell("config validate", "wrong", ok=Exit.LOCAL)
    assert flawed["flaws"]
    wrong.unlink()

    (started,) = shell("start", "edge", "--background")
    assert started["state"] == "connected"
    shell("status", "edge")
    assert shell("logs", "edge")
    lab.run(lab.api(), lab.swarm("def main():\n    return 1\n"))
    (ran,) = shell("who", "edge", "--user", "me@localhost")
    assert (ran["task"], ran["status"]) == ("task.0", "FINISHED")
    assert "me@localhost" in manta_node("who", "edge").stdout
    assert "No task has run here yet" in manta_node("who", "edge", "--user", "other").stdout
    shell("doctor", "edge")
    shell("reload", "edge")
    for row in ("service install", "service status", "service uninstall"):
        shell(row, "edge", XDG_CONFIG_HOME=str(manta_node.home))
    assert shell("audit verify", "edge")[0]["intact"] is True
    assert "attempt-ended" in [record["act"] for record in shell("audit export", "edge")]
    swarm = lab.run(lab.api(), lab.swarm(MAKES, collect="references"))
    (stays,) = shell("results", "edge")
    assert (stays["swarm_id"], stays["values"]) == (swarm, 1)
    assert "runs already" in manta_node("results", "edge", "--delete", swarm).stderr
    policy = manta_node.home / "policy.toml"
    policy.write_text("[[rule]]\n")
    shell("config init", "ward", *made, "--policy", policy)
    shell("policy show", "ward")
    who = ("--user", "ada@example.org", "--module", "sums")
    (tested,) = shell("policy test", "ward", *who, "--outbound", "api.example:443", ok=Exit.DENIED)
    assert tested["verdict"] == "deny"
    assert tested["ways"] == [{"target": "api.example:443", "entry": None}]
    subject = Subject("ada@example.org", "key", "0" * 64)
    asked = AskedRecords({subject.id: Asked(subject, 1.0, 1.0, "why")})
    OwnerRecords(manta_node.home / "state" / "nodes" / "ward" / "owner").write_asked(asked)
    assert shell("approve", "ward")[0]["request"] == subject.id
    shown = json.loads(manta_node("approve", "ward", subject.id, "--json").stdout)
    assert {"found", "diff", "approved_before"} < set(shown)
    assert shell("approve --yes", "ward", subject.id, "--until", "7d")[0]["allows"]
    shell("deny", "ward", subject.id)
    assert not shell("revoke", "ward")[0]["allows"]
    shell("stop", "edge")
    other = manta_node("results", "edge", "--delete", "other")
    assert f"there are some of {swarm}" in other.stderr
    assert shell("results --delete", swarm, "edge")[0]["bytes"] == stays["bytes"] >= 2 << 20
    assert "No results stay on the node edge." in manta_node("results", "edge").stdout
    shell("cluster N", 2, "--name", "box")
    shell("cluster stop")
    shell("cluster start", 1, "--config", "edge")
    assert {record["name"] for record in shell("status --all", ok=Exit.UNREACHABLE)} == {
        "edge",
        "edge-1",
        "box-1",
        "box-2",
        "ward",
    }

    shell("drain", "edge-1", "--wait")

    assert set(shell.printed) == {row for row, (form, _) in documented.items() if form != "no JSON"}
    inner = nested(HEADING)
    for row, records in shell.printed.items():
        assert records, row
        for record in records:
            assert set(record) == documented[row][1], row
            for name, fields in inner.items():
                value = record.get(name) or []
                for item in value if isinstance(value, list) else [value]:
                    assert set(item) == fields, (row, name)


def test_the_states_of_a_node_that_are_documented_are_those_that_there_are() -> None:
    of_the_daemon = {"starting", "connected", HELD, "refused", "failed", "killed", "unknown"}
    of_the_daemon |= {"stopping", "stopped"}
    listed = re.search(r"`state` is one of ([^;]+);", DOCUMENT.read_text())
    assert listed is not None
    assert (
        set(re.split(r",\s+", listed[1])) == {str(reason) for reason in DownReason} | of_the_daemon
    )
