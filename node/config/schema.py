"""The keys of a node's configuration, declared once: NodeConfig's fields.

What a file may say, the options of `config init`, the MANTA_NODE_* variables, what `config show`
prints and the sentences about what is wrong are all read off them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manta.node.config import values
from manta.node.config.described import Described
from manta.protocol.bundle import PARTS
from manta.protocol.isolation import AUTO, BWRAP, DOCKER, GVISOR, LANDLOCK, LEVELS, LIMITS
from manta.transports.addresses import join_address
from manta.transports.security.owner_key import KeySource

MIB = 1024 * 1024
PREFIX = "MANTA_NODE_"
PORTS = 2
"""That a node has for its peers: for links, and for large values."""
NOUNS = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts in quotes",
}


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Key:
    """One key of the file: its type, bounds and default, and how the command line calls it."""

    path: str
    """Section and name. A section alone is a table of free names."""
    type: type
    default: Any
    """The file's value; None if `work_out` finds it, or there is none."""
    help: str
    option: str
    metavar: str | None = None
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    former: Mapping[str, str] = field(default_factory=dict)
    """What choices were called before."""
    secret: bool = False
    work_out: Callable[[], Any] = lambda: None
    worked_out: str = ""
    """What help says instead of a default."""
    read: Callable[[Any], Any] = _same
    """Turns the file's value into the node's. Raises ValueError with the remedy."""
    show: Callable[[Any], Any] = _same
    """Turns the node's value into the file's."""

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        return self.path.partition(".")[2]

    @property
    def variable(self) -> str:
        plural = "S" if self.type is dict else ""
        return PREFIX + self.option[2:].upper().replace("-", "_") + plural

    @property
    def shown_default(self) -> str:
        """The default as help shows it; "" for none."""
        if self.default in (None, ""):
            return self.worked_out
        if self.type is bool:
            return "yes" if self.default else "no"
        return f"{self.default:g}" if self.type is float else str(self.default)

    @property
    def is_repeated(self) -> bool:
        """Whether its option is given once for each item."""
        return self.type in (dict, list)

    def left_out(self) -> Any:
        """Returns the node's value if the file has none."""
        return self.work_out() if self.default is None else self.read(self.default)

    def check(self, value: Any) -> Any:
        """Returns the node's value for the file's. Raises ValueError with the remedy."""
        kinds = (int, float) if self.type is float else self.type
        fits = isinstance(value, kinds) and (self.type is bool or not isinstance(value, bool))
        if fits and self.low is not None:
            fits = self.low <= value and (self.high is None or value <= self.high)
        if fits and self.choices:
            value = value.upper() if value.upper() in self.choices else value
            fits = value in self.choices
        if fits and self.type is list:
            fits = all(isinstance(one, str) for one in value)
        if not fits:
            raise ValueError(f"it must be {self._wanted()}")
        return self.read(value)

    def _wanted(self) -> str:
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        words = NOUNS[self.type]
        if self.low is not None and self.high is not None:
            words += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            words += f" of at least {self.low:g}"
        return words


def setting(
    path: str, type: type, default: Any, help: str, *, option: str = "", **more: Any
) -> Any:
    """Declares a field of NodeConfig that is a key of the file."""
    option = option or "--" + path.rpartition(".")[2].replace("_", "-")
    key = Key(path, type, default, help, option, **more)
    return field(repr=not key.secret, metadata={"key": key})


_MEBIBYTES: dict[str, Any] = {
    "read": lambda count: count * MIB,
    "show": lambda size: size // MIB,
}


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """A configuration in force: defaults are filled in, sizes are bytes."""

    path: Path
    number: int | None = None
    """Which node of a cluster that one configuration describes, counted from 1."""
    token_variable: str = ""
    """The environment variable that the token should come from, if it is not set."""
    token_variables: tuple[str, ...] = ()
    """All variables that the token comes from."""
    notes: tuple[str, ...] = ()
    """What the file says in words of before, with those of today; without a full stop."""
    described: Mapping[str, Described] = field(default_factory=dict)
    """What is said of datasets, beside where they lie, by name."""

    token: str = setting(
        "identity.secured_token",
        str,
        "",
        "To enrol; better left to the variable MANTA_NODE_TOKEN.",
        option="--token",
        secret=True,
        read=str.strip,
    )
    alias: str = setting(
        "identity.alias",
        str,
        None,
        "What the node is called in its cluster.",
        work_out=values.host_name,
        read=values.name,
    )
    id_mode: str = setting(
        "identity.id",
        str,
        "hardware",
        "Where its id comes from when it enrols.",
        choices=("hardware", "random", "alias"),
    )
    manager_host: str = setting(
        "network.manager_host",
        str,
        "localhost",
        "Where the manager runs.",
        metavar="HOST",
        read=values.host,
    )
    manager_port: int = setting(
        "network.manager_port", int, 50051, "The manager's port for nodes.", low=1, high=65535
    )
    network_allow: tuple[str, ...] = setting(
        "network.allow",
        list,
        None,
        "Where tasks that ask for it may connect to; may be repeated.",
        option="--network-allow",
        metavar="HOST:PORT",
        work_out=tuple,
        worked_out="nowhere",
        read=values.ways_out,
        show=list,
    )
    peers_listen: str = setting(
        "peers.listen",
        str,
        "0.0.0.0:0",
        'Where other nodes connect; port 0: a free one; "off": nowhere.',
        option="--peers-listen",
        metavar="HOST:PORT",
        read=values.listening,
    )
    peers_advertise: tuple[str, ...] = setting(
        "peers.advertise",
        list,
        None,
        "Where other nodes are told to connect; may be repeated.",
        option="--peers-advertise",
        metavar="HOST[:PORT]",
        work_out=tuple,
        worked_out="this machine's addresses",
        read=values.advertised,
        show=list,
    )
    peers_bulk_port: int = setting(
        "peers.bulk_port",
        int,
        0,
        "Where they connect for large values; 0: at the port after that of peers.listen.",
        option="--peers-bulk-port",
        low=0,
        high=65535,
    )
    peers_bulk_cipher: str = setting(
        "peers.bulk_cipher",
        str,
        "aes",
        "What seals large values: AES-256-GCM, on connections of their own, or CURVE, on the link.",
        option="--peers-bulk-cipher",
        choices=("aes", "curve"),
    )
    peers_links: str = setting(
        "peers.links",
        str,
        "local",
        "Between this user's nodes on one machine: by what they share, or sealed as others.",
        option="--peers-links",
        choices=("local", "sealed"),
    )
    max_concurrent_tasks: int = setting(
        "resources.max_concurrent_tasks",
        int,
        None,
        "How many tasks may run at a time.",
        low=0,
        high=10_000,
        work_out=lambda: max(2, os.cpu_count() or 1),
        worked_out="one per core, at least 2",
    )
    reserve_cpu_percent: float = setting(
        "resources.reserve_cpu_percent", float, 5.0, "Kept from tasks.", low=0, high=100, read=float
    )
    reserve_memory: int = setting(
        "resources.reserve_memory_mb", int, 256, "Kept from tasks.", low=0, **_MEBIBYTES
    )
    value_memory: int = setting(
        "resources.value_memory_mb",
        int,
        0,
        "Memory for what tasks exchange; 0: a quarter of the machine's.",
        low=0,
        **_MEBIBYTES,
    )
    result_disk: int = setting(
        "resources.result_disk_mb",
        int,
        16_384,
        "Disk for results that stay on the node.",
        low=0,
        **_MEBIBYTES,
    )
    scratch: int = setting(
        "resources.scratch_mb",
        int,
        10_240,
        "What a task may keep in its scratch folder.",
        low=1,
        **_MEBIBYTES,
    )
    runner: str = setting(
        "containers.runner",
        str,
        AUTO,
        "What tasks run in; auto: the strongest that works here.",
        choices=(AUTO, GVISOR, DOCKER, BWRAP, LANDLOCK, LIMITS),
        former={"process": LIMITS},
    )
    isolation: str = setting(
        "containers.isolation",
        str,
        LIMITS,
        "The least isolation: the node does not start with less.",
        choices=LEVELS,
    )
    default_image: str | None = setting(
        "containers.default_image",
        str,
        None,
        "The image of modules that name none.",
        metavar="IMAGE",
        read=lambda image: image or None,
    )
    """None: the official Python image of the node's version."""
    images_disk: int = setting(
        "containers.images_mb",
        int,
        40_960,
        "Disk for all images that the node has pulled itself; those not used for longest go.",
        low=0,
        **_MEBIBYTES,
    )
    gpu_enabled: bool = setting("containers.gpu_enabled", bool, True, "Tasks may use GPUs.")
    allow_unsandboxed: bool = setting(
        "containers.allow_unsandboxed",
        bool,
        False,
        "Tasks may run as plain processes, which can do all that this user can.",
    )
    requirements_allow: bool = setting(
        "requirements.allow",
        bool,
        True,
        "What modules require is installed for them.",
        option="--requirements-allow",
    )
    requirements_index: str = setting(
        "requirements.index",
        str,
        "",
        "Where it comes from: a URL, or a folder of wheels.",
        option="--requirements-index",
        metavar="URL",
        worked_out="what uv or pip takes",
        read=values.index,
    )
    requirements_sdists: bool = setting(
        "requirements.sdists",
        bool,
        False,
        "Source distributions are built, which runs their code; else wheels alone.",
        option="--requirements-sdists",
    )
    requirements_disk: int = setting(
        "requirements.disk_mb",
        int,
        20_480,
        "Disk for all that was installed.",
        option="--requirements-disk-mb",
        low=64,
        **_MEBIBYTES,
    )
    policy: Path | None = setting(  # noqa: RUF009
        "policy.file",
        str,
        "",
        "Rules of who may run what here, with which data; none: all that the cluster asks for.",
        option="--policy",
        metavar="PATH",
        read=lambda text: Path(text) if text else None,
        show=lambda path: str(path or ""),
    )
    encryption_key_from: KeySource | None = setting(  # noqa: RUF009
        "encryption.key_from",
        str,
        "",
        "Where the key is with which values on this disk are encrypted; none: they are not.",
        option="--encryption-key-from",
        metavar="file:PATH|env:NAME|keyring:NAME",
        read=values.key_source,
        show=lambda source: str(source or ""),
    )
    datasets: dict[str, Path] = setting(  # noqa: RUF009
        "datasets.mappings",
        dict,
        None,
        "A dataset and where it lies; may be repeated.",
        option="--dataset",
        metavar="NAME=PATH",
        work_out=dict,
    )
    bundle_redact: tuple[str, ...] = setting(
        "bundle.redact",
        list,
        None,
        f"What is held back of failures: {', '.join(PARTS)}; may be repeated.",
        option="--bundle-redact",
        metavar="PART",
        work_out=tuple,
        worked_out="nothing",
        read=values.parts,
        show=list,
    )
    labels: dict[str, str] = setting(  # noqa: RUF009
        "labels",
        dict,
        None,
        "A label of the node; may be repeated.",
        option="--label",
        metavar="NAME=TEXT",
        work_out=dict,
    )
    log_level: str = setting(
        "logging.level",
        str,
        "INFO",
        "The lowest level that is logged.",
        option="--log-level",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    debug_mode: bool = setting("logging.debug_mode", bool, False, "Log at level DEBUG.")
    log_to_console: bool = setting(
        "logging.log_to_console", bool, True, "In the foreground, log to the console as well."
    )
    log_rotation: int = setting(
        "logging.rotation",
        str,
        "10 MB",
        "Size at which the log file is put aside; three are kept.",
        option="--log-rotation",
        metavar="SIZE",
        read=values.size,
        show=lambda size: f"{size / 1e6:g} MB",
    )

    @property
    def name(self) -> str:
        """The node's name on this machine."""
        return self.path.stem if self.number is None else f"{self.path.stem}-{self.number}"

    @property
    def manager_address(self) -> str:
        return join_address(self.manager_host, self.manager_port)


FIELDS: dict[str, Key] = {
    each.name: each.metadata["key"] for each in dataclasses.fields(NodeConfig) if each.metadata
}
"""By the fields' names."""
KEYS: dict[str, Key] = {key.path: key for key in FIELDS.values()}
SECTIONS: dict[str, list[str]] = {}
"""The names of each section's keys; none if any name is allowed."""
for _key in KEYS.values():
    SECTIONS.setdefault(_key.section, []).extend([_key.name] if _key.name else [])


def instance(config: NodeConfig, number: int) -> NodeConfig:
    """Returns the configuration of a cluster's node `number`, counted from 1.

    Replaces `{i}`, which counts from 0, and `{alias}` in the paths of datasets. Each node has
    two ports for its peers of its own: they come after those of the node before.
    """
    alias = f"{config.alias}-{number}"

    def own(path: Path) -> Path:
        return Path(str(path).replace("{i}", str(number - 1)).replace("{alias}", alias))

    datasets = {name: own(path) for name, path in config.datasets.items()}
    return dataclasses.replace(
        config,
        alias=alias,
        number=number,
        datasets=datasets,
        peers_listen=_next(config.peers_listen, PORTS * (number - 1)),
        peers_bulk_port=config.peers_bulk_port and config.peers_bulk_port + PORTS * (number - 1),
        peers_advertise=tuple(_next(name, PORTS * (number - 1)) for name in config.peers_advertise),
    )


def _next(address: str, by: int) -> str:
    """The address with a port that is so much more, if it names one."""
    host, colon, port = address.rpartition(":")
    is_literal = ":" in host and not host.endswith("]")
    if not colon or is_literal or not port.isdigit() or not int(port):
        return address
    return f"{host}:{int(port) + by}"
