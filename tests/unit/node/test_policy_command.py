"""What `manta_node policy test` says of connections, by the policy and the node's own list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.node.cli import main as cli

POLICY = """
otherwise = "allow"
new_keys = "first"
[[rule]]
name = "stays in"
modules = ["sealed"]
network = "none"
"""
CONFIG = """
[policy]
file = "policy.toml"
[network]
allow = ["*.lab.example:443", "api.example:*", "10.0.0.0/8:5432"]
"""


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MANTA_HOME", str(tmp_path))
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "edge.toml").write_text(CONFIG)
    (policy := tmp_path / "nodes" / "policy.toml").write_text(POLICY)
    policy.chmod(0o600)
    (tmp_path / "nodes" / "edge.toml").chmod(0o600)


def shown_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    command = ["policy", "test", "edge", "--user", "ada@uni.example", "--isolation", "bwrap"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, *arguments])
    printed = capsys.readouterr()
    return int(str(ended.value.code)), printed.out + printed.err


@pytest.mark.parametrize(
    ("target", "entry"),
    [
        ("db.lab.example:443", "*.lab.example:443"),
        ("API.example:8080", "api.example:*"),
        ("outbound:10.1.2.3:5432", "10.0.0.0/8:5432"),
    ],
)
def test_the_entry_is_named_that_lets_a_task_out(
    capsys: pytest.CaptureFixture[str], target: str, entry: str
) -> None:
    code, said = shown_by(capsys, "--module", "sync", "--outbound", target)
    assert code == Exit.OK, said
    assert f'network.allow has "{entry}" for {target.lower().removeprefix("outbound:")}.' in said


def test_what_the_list_lacks_is_denied_with_what_it_has(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asks = ("--outbound", "api.example:443", "--outbound", "other.example:443")
    code, said = shown_by(capsys, "--module", "sync", *asks)
    assert code == Exit.DENIED
    where = tmp_path / "nodes" / "edge.toml"
    assert f"deny: it connects to other.example:443, and network.allow of {where} has" in said
    assert '"*.lab.example:443", "api.example:*", "10.0.0.0/8:5432"' in said
    _, shown = shown_by(capsys, "--module", "sync", *asks, "--json")
    assert json.loads(shown)["ways"] == [
        {"target": "api.example:443", "entry": "api.example:*"},
        {"target": "other.example:443", "entry": None},
    ]


def test_a_rule_that_keeps_it_in_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = shown_by(capsys, "--module", "sealed", "--outbound", "api.example:443")
    assert code == Exit.DENIED
    quoted = 'rule "stays in" (policy.toml, line 4): network = "none", and it connects to'
    assert f"{quoted} outbound:api.example:443" in said
    both, said = shown_by(capsys, "--module", "sealed", "--outbound", "other.example:443")
    assert both == Exit.DENIED
    assert quoted in said
    assert "; it connects to other.example:443, and network.allow of" in said


def test_a_level_without_ways_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    asks = ("--module", "sync", "--outbound", "api.example:443", "--isolation", "landlock")
    code, said = shown_by(capsys, *asks)
    assert code == Exit.DENIED
    assert "this node runs it at the level 'landlock', at which there are no ways out" in said


@pytest.mark.parametrize("target", ["api.example", "*.example:443", "[::1]:443", ""])
def test_what_is_no_way_out_is_told_with_a_remedy(
    capsys: pytest.CaptureFixture[str], target: str
) -> None:
    code, said = shown_by(capsys, "--module", "sync", "--outbound", target)
    assert code == Exit.USAGE
    assert "--outbound" in said
    assert "outbound:api.example:443" in said or "IPv4" in said


def test_a_node_without_a_policy_allows_all_but_what_its_list_of_hosts_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = tmp_path / "nodes" / "edge.toml"
    where.write_text(CONFIG.replace('[policy]\nfile = "policy.toml"\n', ""))
    code, said = shown_by(capsys, "--module", "sync", "--outbound", "api.example:443")
    assert code == Exit.OK, said
    assert "allow: the node edge has no policy, so all that its cluster's users deploy may" in said
    assert "What may leave: " in said
    code, said = shown_by(capsys, "--module", "sync", "--outbound", "other.example:443")
    assert code == Exit.DENIED
    assert f"deny: it connects to other.example:443, and network.allow of {where} has" in said
