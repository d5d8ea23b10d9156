"""The names, arguments and defaults that users write, as they are promised to them."""

from __future__ import annotations

import inspect
from types import MethodType
from typing import Any

import pytest

import manta
from manta import AsyncUserAPI, Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.protocol.version import VERSION

PATHS = {
    "manta": "Swarm Task Module Condition UserAPI AsyncUserAPI Results",
    "manta.apis": "Swarm Task Module Condition UserAPI AsyncUserAPI Results",
    "manta.apis.swarm": "Swarm Task Module Condition",
    "manta.apis.module": "Module",
    "manta.apis.graph": "Condition Graph",
    "manta.apis.user_api": "UserAPI AsyncUserAPI",
    "manta.apis.async_user_api": "AsyncUserAPI",
    "manta.apis.results": "Results",
    "manta.apis.errors": "MantaError NotFound Unplaceable InvalidSwarm GraphError ModuleError",
    "manta.testing": "run_task",
}


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in PATHS.items() for name in names.split()]
)
def test_a_name_is_the_same_object_whatever_path_it_is_imported_by(path: str, name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"from {path} import {name}", scope)
    assert scope[name] is getattr(manta, name, scope[name])
    assert scope[name].__name__ == name


def test_the_version_is_there() -> None:
    assert manta.__version__ == VERSION


def test_a_condition_is_two_words() -> None:
    assert [one.name for one in manta.Condition] == ["FINISHED", "RESULT"]


def written(call: Any) -> str:
    """Names and defaults in their order, without types and `self`."""
    parameters = list(inspect.signature(call).parameters.values())
    plain = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    return ", ".join(str(p) if p.kind is not p.KEYWORD_ONLY else f"*{p}" for p in plain)


SIGNATURES: list[tuple[Any, str]] = [
    (
        Module,
        "python_program, image=None, name=None, datasets=None, version=None, requirements=None, "
        "resources=None, include=None, network=None",
    ),
    (
        Task,
        "module, method='all', fixed=False, excepted_ids=None, specified_ids=None, maximum=-1, "
        "gpu=False, alias=None, network=None, class_name=None, replicas=None, resources=None, "
        "datasets=None, priority=0, timeout=None, retries=0, quorum=None, deadline=None, "
        "on_disconnect=None, redundancy=None, collect='all'",
    ),
    (Swarm.__init__, "max_iteration=None, seed=None"),
    (Swarm.set_global, "tag, value"),
    (Swarm.set_cluster, "cluster"),
    (Swarm.add_network, "name, topology='full'"),
    # host and port are localhost and 50052 where neither environment nor profile says another.
    (UserAPI, "token=None, host=None, port=None, profile=None"),
    (
        UserAPI.sign_in,
        "email, password, host=None, port=None, profile=None, server_key=None",
    ),
    (UserAPI.create_cluster, "name"),
    (UserAPI.create_node_token, "cluster, uses=1, ttl=900"),
    (UserAPI.check_swarm, "cluster, swarm"),
    (UserAPI.deploy_swarm, "cluster, swarm=None, *wait=False"),
    (UserAPI.send_swarm, "cluster, swarm=None, *wait=False"),
    (UserAPI.stop_swarm, "swarm, force=False"),
    (UserAPI.wait_swarm, "swarm, timeout=None"),
    (UserAPI.get_swarm_results, "swarm, tag=None, wait=False, *attempts='counting'"),
    (UserAPI.select_results, "swarm, tag, *attempts='counting'"),
    (UserAPI.stream_results, "swarm, tag=None, *attempts='counting'"),
    (UserAPI.collect_logs, "swarm, node=None, task=None, *iteration=None, *limit=None"),
    (UserAPI.list_node_ids, "cluster, available=False"),
    (UserAPI.select_global, "swarm, tag"),
    (UserAPI.set_global, "swarm, tag, value"),
]


@pytest.mark.parametrize(("call", "expected"), SIGNATURES)
def test_arguments_their_order_and_their_defaults(call: Any, expected: str) -> None:
    assert written(call) == expected


PROMISED = """
close disconnect is_available sign_in
create_cluster list_clusters get_cluster start_cluster stop_cluster delete_cluster
create_node_token list_nodes get_node list_available_node_ids stream_nodes drain_node stop_node
remove_node get_node_resources stream_node_resources
check_swarm deploy_swarm send_swarm start_swarm pause_swarm resume_swarm stop_swarm remove_swarm
get_swarm list_swarms stream_swarms get_tasks explain_swarm explain_task explain_result get_stacks
wait_swarm
get_swarm_results select_results stream_results list_result_tags
select_global set_global list_global_tags get_metrics stream_metrics
collect_logs stream_logs collect_errors
send_module get_module list_modules update_module remove_module
get_user add_user delete_user list_users grant_role revoke_role create_role_definition
create_user_token rotate_token logout
"""
LISTED = [
    form.format(kind)
    for kind in ("cluster", "node", "module", "swarm", "user")
    for form in ("list_{}_ids", "stream_{}s", "stream_and_fetch_{}s")
]


@pytest.mark.parametrize("name", [*PROMISED.split(), *LISTED])
def test_what_is_promised_is_there_and_waits_or_streams_as_its_name_says(name: str) -> None:
    one, other = getattr(UserAPI, name), getattr(AsyncUserAPI, name)
    assert (one.__doc__ or "").strip()
    if name.startswith("stream_") and "fetch" not in name:
        assert inspect.isgeneratorfunction(one)
        assert inspect.isasyncgenfunction(other)
    else:
        assert inspect.iscoroutinefunction(other)
        assert not inspect.iscoroutinefunction(one)
        assert not inspect.isgeneratorfunction(one)


def public(kind: type) -> dict[str, Any]:
    names = {"__init__", *(name for name in dir(kind) if name[0] != "_")}
    return {name: getattr(kind, name) for name in names}


def types_of(call: Any) -> dict[str, str]:
    """As they are written, in the words of the synchronous form."""
    hints = dict(getattr(call, "__annotations__", {}))
    return {name: str(hint).replace("AsyncIterator", "Iterator") for name, hint in hints.items()}


def test_both_apis_have_the_same_methods_with_the_same_arguments_and_types() -> None:
    one, other = public(UserAPI), public(AsyncUserAPI)
    assert sorted(one) == sorted(other)
    for name, call in other.items():
        assert written(one[name]) == written(call), name
        assert types_of(one[name]) == types_of(call), name
        assert isinstance(one[name], MethodType) == isinstance(call, MethodType), name


def test_each_is_its_own_kind_of_context_manager() -> None:
    assert hasattr(UserAPI, "__enter__")
    assert hasattr(UserAPI, "__exit__")
    assert not hasattr(UserAPI, "__aenter__")
    assert inspect.iscoroutinefunction(AsyncUserAPI.__aenter__)
    assert inspect.iscoroutinefunction(AsyncUserAPI.__aexit__)
    assert not hasattr(AsyncUserAPI, "__enter__")


def test_every_error_is_caught_by_the_one_at_the_root() -> None:
    found = [one for one in vars(errors).values() if inspect.isclass(one)]
    found = [one for one in found if one.__module__ == errors.__name__]
    assert len(found) > 20
    for one in found:
        assert issubclass(one, errors.MantaError | Warning), one
