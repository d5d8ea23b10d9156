from __future__ import annotations

import ipaddress

import pytest

from manta.protocol.outbound import (
    MOST,
    Target,
    allowed,
    flaw_of_pattern,
    lacking,
    lets_out,
    reachable,
    target_of,
    targets_of,
)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("outbound:api.example:443", Target("api.example", 443)),
        ("outbound:API.Example.:443", Target("api.example", 443)),
        ("outbound:10.1.2.3:5432", Target("10.1.2.3", 5432)),
        ("outbound:localhost:1", Target("localhost", 1)),
    ],
)
def test_a_way_out_is_a_host_and_a_port(text: str, target: Target) -> None:
    assert target_of(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "outbound:",
        "outbound:api.example",
        "outbound::443",
        "outbound:api.example:0",
        "outbound:api.example:65536",
        "outbound:api.example:٤٤٣",
        "outbound:api.example:99999999999999999999",
        "outbound:*.example:443",
        "outbound:*:443",
        "outbound:10.0.0.0/8:443",
        "outbound:10.1.2.300:443",
        "outbound:[::1]:443",
        "outbound:a b:443",
        "outbound:a\nb:443",
        "outbound:-a:443",
        f"outbound:{'a.' * 130}b:443",
        "inbound:api.example:443",
    ],
)
def test_what_is_none_is_told_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r";") as caught:
        target_of(text)
    assert len(str(caught.value)) < 300


def test_there_are_so_many_and_each_once() -> None:
    assert len(targets_of(["outbound:a:1", "outbound:A:1"])) == 1
    with pytest.raises(ValueError, match="16 are allowed"):
        targets_of([f"outbound:a:{port}" for port in range(1, MOST + 2)])


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("api.example:443", True),
        ("API.example:443", True),
        ("api.example:*", True),
        ("*.example:443", True),
        ("*.api.example:443", False),
        ("example:443", False),
        ("api.example:80", False),
        ("0.0.0.0/0:443", False),  # a name is allowed by name
    ],
)
def test_names_are_allowed_by_name(pattern: str, fits: bool) -> None:
    assert allowed(Target("api.example", 443), [pattern]) == fits


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("10.1.2.3:443", True),
        ("10.0.0.0/8:*", True),
        ("10.1.2.4:443", False),
        ("192.168.0.0/16:443", False),
        ("*.2.3:443", False),
    ],
)
def test_addresses_are_allowed_by_address(pattern: str, fits: bool) -> None:
    assert allowed(Target("10.1.2.3", 443), [pattern]) == fits


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.5",
        "::10.0.0.5",
        "64:ff9b::10.0.0.5",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::9.9.9.9",
        "2002:a00:5::1",
        "2001:0:a00:5::1",
        "fec0::1",
    ],
)
def test_a_name_leads_to_public_addresses_alone_unless_the_list_has_the_address(
    address: str,
) -> None:
    found, target = ipaddress.ip_address(address), Target("api.example", 443)
    assert not reachable(found, target, ["api.example:443", "*.example:*"])
    if found.version == 4:
        assert reachable(found, target, ["api.example:443", f"{address}:443"])
        assert not reachable(found, target, ["api.example:443", f"{address}:80"])


def test_a_public_address_is_reached_by_its_name_and_by_itself_if_it_is_allowed() -> None:
    public = ipaddress.ip_address("9.9.9.9")
    assert reachable(public, Target("api.example", 443), ["api.example:443"])
    assert not reachable(public, Target("9.9.9.9", 443), ["api.example:443"])
    for other in ("2620:fe::9", "64:ff9b::9.9.9.9", "2002:909:909::1"):
        assert reachable(ipaddress.ip_address(other), Target("api.example", 443), [])
    assert reachable(public, Target("9.9.9.9", 443), ["9.9.9.9:443"])


@pytest.mark.parametrize(
    "pattern", ["api.example", "api.example:", ":443", "a:b", "*:443", "10.0.0.0/33:1", "[::1]:443"]
)
def test_an_entry_that_is_none_is_told(pattern: str) -> None:
    assert "is none of" in flaw_of_pattern(pattern)


def test_what_a_list_does_not_have_is_named() -> None:
    targets = targets_of(["outbound:a.example:1", "outbound:b.example:1"])
    assert lacking(targets, ["a.example:1"]) == ["b.example:1"]


def test_levels_with_no_network_of_their_own_let_nothing_out() -> None:
    targets = targets_of(["outbound:a.example:1", "outbound:10.1.2.3:1"])
    assert not lets_out("bwrap", targets)
    assert not lets_out("limits", targets)
    for level in ("landlock", "gvisor", "of a later version"):
        assert f"at the level {level!r}, at which there are no ways out" in lets_out(level, targets)


def test_a_container_has_ways_out_by_names_for_programs() -> None:
    assert not lets_out("docker", targets_of(["outbound:a.example:1", "outbound:127.0.0.2:1"]))
    flaw = lets_out("docker", targets_of(["outbound:a.example:1", "outbound:10.1.2.3:1"]))
    assert "can't have the address of 10.1.2.3:1: name the host" in flaw
    assert "give the module a program" in lets_out("docker", (), runs_program=False)
