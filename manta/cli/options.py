"""Options that several commands share: the manager, swarms, nodes and datasets."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from manta.console.commands import as_json_option, check_utf8
from manta.protocol.isolation import AUTO, BWRAP, DOCKER, GVISOR, LANDLOCK, LIMITS

T = TypeVar("T")
Command = Callable[..., Any]


def with_api(function: Command) -> Command:
    """Adds --json, --host, --port, --token, --profile; passes an open UserAPI first."""

    @connects
    @functools.wraps(function)
    def command(connect: Callable[[], Any], **options: Any) -> Any:
        with connect() as api:
            return function(api, **options)

    return command


@contextlib.contextmanager
def _told_warnings() -> Iterator[None]:
    """What is not complete or not sealed is said on stderr, in a line of ours."""
    from manta.apis.errors import Incomplete, NotSealed
    from manta.console.terminal import say_note

    with warnings.catch_warnings():
        for kind in (Incomplete, NotSealed):
            warnings.simplefilter("always", kind)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
            if issubclass(category, Incomplete | NotSealed):
                say_note(str(message))
            else:
                others(message, category, *more)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def connects(function: Command) -> Command:
    """Does the same, but passes a function that opens the UserAPI."""

    @as_json_option
    @address_options
    @click.option("--token", help="A user's token; prefer the variable MANTA_TOKEN.")
    @click.option("--profile", help="The profile in ~/.manta to use (MANTA_PROFILE).")
    @functools.wraps(function)
    def command(
        host: str | None, port: int | None, token: str | None, profile: str | None, **options: Any
    ) -> Any:
        from manta.apis.user_api import UserAPI

        _check_names(options)
        with _told_warnings():
            return function(lambda: usage(lambda: UserAPI(token, host, port, profile)), **options)

    return command


def address_options(function: Command) -> Command:
    """Adds --host and --port of the manager."""
    host = click.option("--host", help="The manager's host (MANTA_HOST).")
    port = click.option("--port", type=click.IntRange(1, 65535), help="Its user port (MANTA_PORT).")
    return host(port(function))


NAMES = {
    "cluster": "The cluster", "email": "The e-mail address", "module": "The module",
    "name": "The name", "node": "The node", "other": "The swarm", "quota_": "The quota",
    "role": "The role", "role_": "The role", "swarm": "The swarm",
    "swarms": "The swarm", "tag": "The tag", "task": "The task", "user": "The user",
    "user_": "The user",
}  # fmt: skip
"""Parameters that name something, and how a sentence about it begins."""


def _check_names(options: Mapping[str, Any]) -> None:
    """Checks names before the manager is asked about them. Raises click.UsageError."""
    from manta.apis import checks

    def check() -> None:
        for parameter, words in NAMES.items():
            given = options.get(parameter)
            for value in given if isinstance(given, tuple) else (given,):
                if value is not None:
                    checks.name(words, value)

    usage(check)


def usage(make: Callable[[], T]) -> T:
    """Calls the SDK; an invalid argument is a usage error of the command line."""
    from manta.apis.errors import InvalidArgument

    try:
        return make()
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None


def swarm_file(function: Command) -> Command:
    """Adds the file of a swarm, and the parameters of its class."""
    words = "A parameter of the swarm's class."
    pairs = click.option("-p", "parameters", metavar="KEY=VALUE", multiple=True, help=words)
    return click.argument("target", metavar="FILE[:CLASS]")(pairs(function))


cluster_option = click.option("--cluster", required=True, help="The cluster's name or id.")
follow_option = click.option("-f", "--follow", is_flag=True, help="Go on until the swarm ends.")
times_option = click.option(
    "--times", is_flag=True, help="Show the time and iteration of each line of the logs."
)
password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)
manager_home_option = click.option(
    "--home", help="The manager's folder.  [default: ~/.manta/manager]"
)


def nodes_option(least: int) -> Callable[[Command], Command]:
    """Makes the option for the number of nodes of a local cluster."""
    return click.option(
        "--nodes",
        default=2,
        show_default=True,
        type=click.IntRange(least, 256),
        help="How many nodes to start.",
    )


dataset_option = click.option(
    "--dataset",
    "datasets",
    metavar="NAME=PATH",
    multiple=True,
    help="Map a path on every node; {i} counts the nodes from 0, {alias} is node-1, node-2, ...",
)


links_option = click.option(
    "--links",
    type=click.Choice(["local", "sealed"]),
    default="local",
    show_default=True,
    help="sealed encrypts what goes from node to node, as a network's links are.",
)

runner_option = click.option(
    "--runner",
    type=click.Choice([AUTO, GVISOR, DOCKER, BWRAP, LANDLOCK, LIMITS]),
    default=AUTO,
    show_default=True,
    help="How tasks are isolated: docker in containers of their modules' images, gvisor in such "
    "with a kernel of their own, bwrap in sandboxes, landlock confined by the kernel, limits "
    "not at all; auto: bwrap where it works, else landlock.",
)


def split_datasets(pairs: Sequence[str]) -> dict[str, str]:
    """Parses NAME=PATH pairs; each name may occur once."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name.strip() or not path:
            raise click.BadParameter(f"{pair!r} is not NAME=PATH.", param_hint="--dataset")
        if name in found:
            raise click.BadParameter(f"{name} is given twice.", param_hint="--dataset")
        check_utf8(pair, "--dataset", "rename it, or map a link with another name")
        found[name.strip()] = path
    return found
