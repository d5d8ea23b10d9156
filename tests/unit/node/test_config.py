from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from manta.node.config import KEYS, NodeConfig, instance, line_of, load, parse, render, toml_value
from manta.node.errors import ConfigError
from tests.support.damage import damaged

PATH = Path("/etc/manta/edge.toml")
PAGE = Path(__file__).parents[3] / "docs" / "node.md"

SPEC = """
[identity]
secured_token = "${MANTA_NODE_TOKEN}"   # to enrol; afterwards the node's own key is enough
alias = "gpu-worker-1"        # id = "hardware" (default) | "random" | "alias"
[network]
manager_host = "localhost"
manager_port = 50051
[resources]
max_concurrent_tasks = 2
reserve_cpu_percent = 5
reserve_memory_mb = 256
[containers]
runner = "auto"               # docker | bwrap | landlock | limits
gpu_enabled = true
allow_unsandboxed = false     # plain processes, outside `manta run`
[datasets.mappings]           # or [datasets] mappings = { ... } over several lines
training_data = "/data/datasets/training"
[labels]
room = "lab-3"
[logging]
level = "INFO"                # debug_mode, log_to_console, rotation
"""


def read(text: str, **environment: str) -> NodeConfig:
    return parse(text, PATH, environment)


def error(text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, **environment)
    return str(caught.value)


def test_the_specification_s_example() -> None:
    config = read(SPEC, MANTA_NODE_TOKEN=" secret\n")
    assert config.token == "secret"
    assert config.alias == "gpu-worker-1"
    assert config.id_mode == "hardware"
    assert config.manager_address == "tcp://localhost:50051"
    assert config.max_concurrent_tasks == 2
    assert config.reserve_cpu_percent == 5.0
    assert config.reserve_memory == 256 * 1024 * 1024
    assert config.runner == "auto"
    assert config.gpu_enabled
    assert config.allow_unsandboxed is False
    assert config.datasets == {"training_data": Path("/data/datasets/training")}
    assert config.labels == {"room": "lab-3"}
    assert config.log_level == "INFO"


def test_nothing_at_all_is_enough() -> None:
    config = read("")
    assert config.alias
    assert config.max_concurrent_tasks >= 2
    assert config.token == ""
    assert config.allow_unsandboxed is False
    assert config.log_rotation == 10_000_000


def test_an_unset_token_is_none_until_it_is_needed() -> None:
    config = read(SPEC)
    assert config.token == ""
    assert config.token_variable == "MANTA_NODE_TOKEN"


def test_where_other_nodes_connect() -> None:
    config = read("")
    assert (config.peers_listen, config.peers_advertise) == ("0.0.0.0:0", ())
    assert config.peers_links == "local"
    assert (config.peers_bulk_port, config.peers_bulk_cipher) == (0, "aes")
    assert read("[peers]\nbulk_cipher = 'curve'\n").peers_bulk_cipher == "curve"
    assert read("[peers]\nlisten = 'off'\n").peers_listen == "off"
    config = read(
        "[peers]\nlisten = '[::]:50061'\nadvertise = ['${NAME}.example', '[2001:db8::1]:7']\n",
        NAME="gate",
    )
    assert config.peers_listen == "[::]:50061"
    assert config.peers_advertise == ("gate.example", "[2001:db8::1]:7")
    assert parse(render(config), PATH, {}).peers_advertise == config.peers_advertise


def test_each_node_of_several_has_two_ports_of_its_own() -> None:
    config = read("[peers]\nlisten = '0.0.0.0:50061'\nadvertise = ['gate:7', 'gate', '::1']\n")
    assert instance(config, 1).peers_listen == "0.0.0.0:50061"
    third = instance(config, 3)
    assert (third.peers_listen, third.peers_advertise) == (
        "0.0.0.0:50065",
        ("gate:11", "gate", "::1"),
    )
    assert third.peers_bulk_port == 0
    own = read("[peers]\nlisten = '0.0.0.0:50061'\nbulk_port = 50161\n")
    assert instance(own, 3).peers_bulk_port == 50165
    for same in ("off", "0.0.0.0:0", "10.0.0.1"):
        assert instance(read(f"[peers]\nlisten = '{same}'\n"), 3).peers_listen == same


def test_tables_in_braces_over_several_lines() -> None:
    config = read('[datasets]\nmappings = {\n  a = "/x",\n  "b c" = "y/z",\n}\n')
    assert config.datasets == {"a": Path("/x"), "b c": Path("/etc/manta/y/z")}


def test_variables() -> None:
    text = '[network]\nmanager_host = "${HOST}.lan"\nmanager_port = "${PORT}"\n'
    text += '[containers]\ngpu_enabled = "${GPU}"\n[labels]\nprice = "$5 $${HOST}"\n'
    config = read(text, HOST="m1", PORT="99", GPU="false")
    assert config.manager_address == "tcp://m1.lan:99"
    assert not config.gpu_enabled
    assert config.labels == {"price": "$5 ${HOST}"}


def test_other_keys() -> None:
    config = read('[identity]\nid = "alias"\n[logging]\nlevel = "debug"\nrotation = "2 MiB"\n')
    assert config.id_mode == "alias"
    assert config.log_level == "DEBUG"
    assert config.log_rotation == 2 * 1024 * 1024
    assert read("[logging]\ndebug_mode = true").log_level == "DEBUG"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[network]\nmanager_prot = 1\n",
            "line 2: there is no key 'network.manager_prot'; did you mean 'manager_port'?",
        ),
        ("\n\n[netwrok]\n", "line 3: there is no key 'netwrok'; did you mean 'network'?"),
        ("[network]\nalias = 'x'\n", "did you mean 'identity.alias'?"),
        (
            "manager_port = 1\n",
            "there is no key 'manager_port'; did you mean 'network.manager_port'?",
        ),
        ("[identity]\nqqq = 1\n", "it may be: secured_token, alias, id."),
        (
            "[network]\nmanager_port = 'x'\n",
            "line 2: network.manager_port is 'x'; it must be a whole number from 1 to",
        ),
        ("[network]\nmanager_port = 70000\n", "manager_port is 70000; it must"),
        ("[network]\nmanager_port = true\n", "manager_port is True; it must"),
        ("network.manager_port = 1.5\n", "line 1: network.manager_port is 1.5; it must be"),
        ("[resources]\nreserve_cpu_percent = -1\n", "must be a number from 0 to 100"),
        (
            "[containers]\nrunner = 'podman'\n",
            'is \'podman\'; it must be one of "auto", "gvisor", "docker", "bwrap", "landlock", '
            '"limits".',
        ),
        ("[containers]\ngpu_enabled = 1\n", "must be true or false"),
        (
            "[identity]\nalias = 'two words'\n",
            "alias is 'two words'; it must be a name",
        ),
        ("[identity]\nalias = ''\n", "must be a name"),
        ("[datasets]\nmappings = 5\n", "line 2: datasets.mappings is 5; it must be a table"),
        (
            "[datasets]\nmappings = {\n a = 'x',\n b = 5 }\n",
            "line 4: datasets.mappings.b is 5;",
        ),
        ("[datasets.mappings]\na = '${NOWHERE}'\n", "needs the environment variable NOWHERE"),
        ("labels = 3\n", "line 1: labels is no table; write [labels]."),
        ("[logging]\nrotation = 'weekly'\n", 'must be a size such as "10 MB"'),
        ("[logging]\nrotation = '9 KB'\n", "is '9 KB'; it must be at least \"10 KB\""),
        ("[labels]\nroom = ''\n", "labels.room is ''; it must not be empty"),
        ("[network]\nmanager_host = 'tcp://x:1'\n", "without scheme"),
        ("[peers]\nlisten = 'tcp://x:1'\n", "without scheme; port 0 is a free one"),
        ("[peers]\nlisten = '0.0.0.0:99999'\n", "port from 1 to 65535"),
        ("[peers]\nadvertise = 'host'\n", "it must be a list of texts in quotes"),
        ("[peers]\nadvertise = [7]\n", "it must be a list of texts in quotes"),
        ("[peers]\nadvertise = ['${NOWHERE}']\n", "needs the environment variable NOWHERE"),
        ("[peers]\nadvertise = ['0.0.0.0:7']\n", "Nobody can connect to 'tcp://0.0.0.0:7'"),
        (f"[peers]\nadvertise = {['h'] * 9}\n", "it must name 8 addresses at most"),
        ("[network]\nmanager_host = '[::1]:5'\n", 'manager_host = "::1" and manager_port = 5'),
        ("[network]\nmanager_host = '::zz'\n", "without scheme"),
        ("[identity]\nsecured_token = \n", "line 2, column 17: it is not TOML: Invalid value;"),
        ("[identity\n", "line 1, column 10: it is not TOML"),
    ],
)
def test_what_is_wrong_is_said(text: str, expected: str) -> None:
    message = error(text)
    assert message.startswith(str(PATH))
    assert expected in message


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = """\
[identity]
alias = "two words"
secured_tokn = "x"
[network]
manager_port = 0
manager_host = "${NOWHERE}.${NEITHER}"
[datasets]
mappings = {
  a = 5,
  b = "${NOPE}",
}
[logging]
rotation = "weekly"
[labls]
"""
    with pytest.raises(ConfigError) as caught:
        read(text)
    flaws = {(".".join(flaw.where), flaw.line) for flaw in caught.value.flaws}
    assert flaws == {
        ("identity.alias", 2),
        ("identity.secured_tokn", 3),
        ("network.manager_port", 5),
        ("network.manager_host", 6),
        ("datasets.mappings.a", 9),
        ("datasets.mappings.b", 10),
        ("logging.rotation", 13),
        ("labls", 14),
    }
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.flaws) == 9, "both variables of the host"
    assert all(line.startswith(f"{PATH}, line ") for line in lines)
    assert all(flaw.wrong and flaw.remedy for flaw in caught.value.flaws)


def test_a_token_in_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open.toml"
    path.write_text("[identity]\nsecured_token = 'hunter2'\n")
    path.chmod(0o640)
    with pytest.raises(
        ConfigError, match=r"open to other users \(mode 0640\); run `chmod 600"
    ) as e:
        load(path, {})
    assert "hunter2" not in str(e.value)
    path.write_text("[identity]\nsecured_token = '${TOKEN}'\n")
    assert load(path, {"TOKEN": "t"}).token == "t"


def test_one_configuration_for_several_nodes() -> None:
    shared = read(
        "[identity]\nalias = 'edge'\n[datasets]\nmappings = {a='/d/{i}/{alias}', b='/b'}\n"
    )
    second = instance(shared, 2)
    assert (second.name, second.alias) == ("edge-2", "edge-2")
    assert second.datasets == {"a": Path("/d/1/edge-2"), "b": Path("/b")}


def test_secrets_are_never_shown() -> None:
    assert "hunter2" not in error("[identity]\nsecured_token = ['hunter2']\n")
    config = read("[identity]\nsecured_token = 'hunter2'\n")
    assert "hunter2" not in repr(config)
    assert "hunter2" not in render(config)
    assert '"***"' in render(config)


def test_rendered_reads_the_same() -> None:
    config = read(SPEC, MANTA_NODE_TOKEN="t")
    again = read(render(config))
    assert again.datasets == config.datasets
    assert again.labels == config.labels
    assert again.reserve_cpu_percent == config.reserve_cpu_percent
    assert again.log_rotation == config.log_rotation


def test_text_survives_toml() -> None:
    import tomli

    nasty = 'a"b\\c\nd\te\x01\x7f\x9b\u202e\U000e0041'
    assert tomli.loads(f"x = {toml_value(nasty)}")["x"] == nasty


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such configuration.*config init gone"):
        load(tmp_path / "gone.toml")
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(bad)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    good = tmp_path / "good.toml"
    good.write_text(SPEC)
    assert load(good).path == good


def test_lines_of_keys() -> None:
    text = 'a.b = 1\n[c]\nd = { e = 1,\n f = 2 }\n"g h" = 3\n[c.x] # tail\ny = 1\n'
    assert line_of(text, ("a", "b")) == 1
    assert line_of(text, ("c",)) == 2
    assert line_of(text, ("c", "d", "e")) == 3
    assert line_of(text, ("c", "d", "f")) == 4
    assert line_of(text, ("c", "g h")) == 5
    assert line_of(text, ("c", "x", "y")) == 7
    assert line_of(text, ("z",)) is None


def test_every_default_is_valid() -> None:
    for path, key in KEYS.items():
        if key.default is not None:
            read(f"{path} = {toml_value(key.default)}\n")


def test_each_key_has_an_option_and_a_variable_and_the_page_names_them() -> None:
    from manta.node.cli.config import config_init

    rows = re.findall(r"^\| `([a-z_.]+)` \| `(--[a-z-]+)` \| `(\w+)` \|$", PAGE.read_text(), re.M)
    documented, options, variables = (set(column) for column in zip(*rows, strict=True))
    assert documented == set(KEYS)
    assert options <= {option for parameter in config_init.params for option in parameter.opts}
    assert variables == {key.variable for key in KEYS.values()}


def test_the_documents_example() -> None:
    page = PAGE.read_text(encoding="utf-8")
    config = read(page.partition("```toml\n")[2].partition("```")[0])
    assert config.token_variable == "MANTA_NODE_TOKEN"
    for key in KEYS.values():
        assert f"[{key.section}" in page
        assert f"{key.name} = " in page or key.type is dict


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_address_of_a_manager_with_an_ipv6_host(host: str, tmp_path: Path) -> None:
    config = parse(f"[network]\nmanager_host = '{host}'\n", tmp_path / "node.toml", {})
    assert (config.manager_host, config.manager_address) == ("::1", "tcp://[::1]:50051")


@pytest.mark.parametrize(
    "content", [b"a = " + b"[" * 50_000, b"a." * 5000 + b"b = 1", b"a = " + b"9" * 10_000]
)
def test_what_no_decoder_reads_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"it is not TOML that can be read: .*; write it anew"):
        load(path)


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_is_a_configuration_or_a_flaw(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "node.toml"
    path.touch(0o600)
    path.write_bytes(damaged(SPEC.encode(), Random(seed)))
    try:
        assert isinstance(load(path), NodeConfig)
    except ConfigError as error:
        said = str(error)
        assert str(path) in said


@pytest.mark.parametrize(
    "table",
    [
        "datasets.mappings]\n" + "".join(f"d{n} = '/d'\n" for n in range(20_000)),
        "labels]\nroom = '" + "x" * 2_000_000 + "'\n",
    ],
)
def test_what_no_message_takes_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match="are too much for a manager; map a folder instead"):
        read(f"[{table}")


def test_many_datasets_are_fine() -> None:
    table = "".join(f"d{n} = '/d'\n" for n in range(10_000))
    assert len(read(f"[datasets.mappings]\n{table}").datasets) == 10_000


def test_what_was_called_otherwise_before_is_read_and_said() -> None:
    config = read("[network]\nmanager_host = 'a'\n[containers]\nrunner = 'process'\n")
    assert config.runner == "limits"
    assert config.notes == ('containers.runner = "process" is called "limits" now: write that',)
    assert read(SPEC, MANTA_NODE_TOKEN="t").notes == ()
