"""Which nodes run a task, and why the others do not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.placement.demand import Demand
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import place
from manta.manager.placement.plan import check
from manta.manager.placement.rules import RULES
from manta.manager.placement.validity import flaws
from manta.protocol.isolation import LEVELS
from manta.protocol.node import Capabilities, DatasetInfo, GpuInfo, Load
from manta.protocol.spec import Edge, ModuleSpec, ResourceSpec, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef

GIB = 2**30


def views(count, **changes):
    return [
        NodeView(f"id{n}", f"node-{n}", Capabilities(max_concurrent_tasks=2), **changes)
        for n in range(1, count + 1)
    ]


def demand(method="all", module=None, **changes):
    asked = {name: changes.pop(name) for name in list(changes) if name in Demand.__annotations__}
    return Demand(TaskSpec("w", "m", method=method, **changes), module or ModuleSpec("m"), **asked)


def nodes_of(outcome):
    assert not outcome.problems
    assert [p.index for p in outcome.placements] == list(range(len(outcome.placements)))
    return [p.node_id for p in outcome.placements]


# Rules.

SMALL = Capabilities(cores=2, memory=GIB, disk=GIB, architecture="x86_64", scratch=GIB // 2)
LARGE = Capabilities(
    cores=8,
    architecture="s390x",
    labels={"room": "a"},
    memory=64 * GIB,
    disk=900 * GIB,
    gpus=(GpuInfo("A", 8 * GIB),),
    datasets=(DatasetInfo("digits", 1, "npz"), DatasetInfo("faces", 1, "folder")),
)


def shards(alias: str, *numbers: int) -> NodeView:
    held = tuple(DatasetInfo(f"shard_{number}", 1, "npz") for number in numbers)
    return NodeView(alias, alias, Capabilities(datasets=held))


@pytest.mark.parametrize(
    ("rule", "asked", "bad", "reason"),
    [
        ("connected", {}, {"connected": False}, "is not connected"),
        ("draining", {}, {"draining": True}, "is draining"),
        ("able", {}, {"trouble": "cannot write in /s (full)"}, "cannot write in /s (full)"),
        ("specified", {"specified_ids": ("node-2",)}, {}, "is not in specified_ids"),
        ("excepted", {"excepted_ids": ("id1",)}, {}, "is in excepted_ids"),
        ("scheduled", {"within": ("id2",)}, {}, "was not named in schedule_next_iter"),
        ("fixed", {"kept": ("id2",)}, {}, "did not run it in the first iteration (fixed=True)"),
        ("datasets", {"datasets": ("digits",)}, {}, "has no dataset 'digits' (it has none)"),
        ("gpu", {"gpu": True}, {}, "has no GPU, 1 GPU is asked for"),
        (
            "gpu",
            {"resources": ResourceSpec(gpu=1, gpu_memory=6 * GIB, gpu_shared=True)},
            {},
            "has no GPU, 6 GiB of 1 GPU is asked for",
        ),
        ("arch", {"resources": ResourceSpec(arch="s390x")}, {}, "is x86_64, s390x is asked for"),
        (
            "labels",
            {"resources": ResourceSpec(labels=(("room", "a"),))},
            {},
            "has no label 'room' (it has none)",
        ),
        (
            "resources",
            {"resources": ResourceSpec(disk=GIB)},
            {},
            "lets a task keep 512 MiB on its disk (resources.scratch_mb), 1 GiB are asked for",
        ),
        ("resources", {"resources": ResourceSpec(cpu=4)}, {}, "has 2 cores, 4 are asked for"),
        (
            "resources",
            {"resources": ResourceSpec(memory=3 * GIB)},
            {},
            "has 1 GiB of memory, 3 GiB are asked for",
        ),
        (
            "resources",
            {"resources": ResourceSpec(disk=100 * GIB)},
            {},
            "has 1 GiB of disk, 100 GiB are asked for",
        ),
        (
            "direct",
            {"direct": True},
            {"direct": False},
            "has an earlier version of Manta, which exchanges nothing with other nodes",
        ),
        ("tag", {"method": "tag-x", "producers": ("id2",)}, {}, "wrote no result 'x'"),
    ],
)
def test_each_rule_refuses_with_its_reason(rule, asked, bad, reason):
    bad_node = NodeView("id1", "node-1", SMALL, **bad)
    good = NodeView("id2", "node-2", LARGE)
    outcome = place(demand(**asked), [bad_node, good])
    assert nodes_of(outcome) == ["id2"]
    refused, accepted = outcome.verdicts
    assert (refused.node_alias, refused.rule, refused.reason) == ("node-1", rule, reason)
    assert not refused.accepted
    assert (accepted.node_alias, accepted.accepted, accepted.rule) == ("node-2", True, "method")
    alone = place(demand(**asked), [bad_node])
    assert alone.placements == ()
    assert alone.problems[0].startswith("Task 'w' cannot be placed: ")
    remedy = next(one.remedy for one in RULES if one.name == rule)
    assert f"; {remedy}." in alone.problems[0]


def test_who_need_not_wait_for_a_gpu_goes_first_then_who_has_the_image_then_the_idle():
    gpus = (GpuInfo("A", 8 * GIB),)
    full = NodeView("a", "a", Capabilities(gpus=gpus), load=Load(gpu_room=(-1,)))
    free = NodeView("b", "b", Capabilities(gpus=gpus), load=Load(gpu_room=(8 * GIB,)), assigned=1)
    assert nodes_of(place(demand("any", gpu=True, maximum=1), [full, free])) == ["b"]
    assert nodes_of(place(demand("best_resources", gpu=True, maximum=1), [full, free])) == ["b"]

    module = ModuleSpec("m", image="lab/train")
    has = Capabilities(runners=("docker",), images=("lab/train:latest",), max_concurrent_tasks=2)
    lacks = Capabilities(runners=("docker",), max_concurrent_tasks=2)
    there, other = NodeView("b", "b", has, assigned=1), NodeView("a", "a", lacks)
    assert nodes_of(place(demand("any", maximum=1, module=module), [other, there])) == ["b"]
    crowded = NodeView("b", "b", has, assigned=2)
    assert nodes_of(place(demand("any", maximum=1, module=module), [other, crowded])) == ["a"]

    busy = NodeView("a", "a", Capabilities(cores=2), load=Load(load_average=5.0))
    assert nodes_of(place(demand("any", maximum=1), [busy, NodeView("b", "b", SMALL)])) == ["b"]


def test_instances_that_wait_for_each_other_need_gpus_for_all_of_them():
    task = {"replicas": 3, "meets": "all_reduce", "gpu": True}
    has = Capabilities(max_concurrent_tasks=8, gpus=(GpuInfo("A", GIB), GpuInfo("A", GIB)))
    [problem] = place(demand(**task), [NodeView("a", "a", has)]).problems
    assert "at most 2 replicas" in problem
    assert place(demand(**task | {"replicas": 2}), [NodeView("a", "a", has)]).problems == ()


def test_the_modules_needs_count_too():
    module = ModuleSpec("m", datasets=("digits",), resources=ResourceSpec(cpu=4))
    outcome = place(demand(module=module), [NodeView("id1", "n", SMALL)])
    assert [v.rule for v in outcome.verdicts] == ["datasets"]


@pytest.mark.parametrize(
    ("asked", "nodes", "problem"),
    [
        (
            {},
            [],
            "Task 'w' cannot be placed: no node is connected; "
            "start a node of this cluster (manta_node start).",
        ),
        (
            {"datasets": ("digts",)},
            [NodeView("1", "a", LARGE), NodeView("2", "b", SMALL)],
            "Task 'w' cannot be placed: no node that it may run on has the dataset 'digts' "
            "(there are: 'digits', 'faces'); correct the name, or map it: [datasets] of a node, or "
            "--dataset NAME=PATH. Did you mean 'digits'?",
        ),
        (
            {"specified_ids": ("a", "zz")},
            [NodeView("1", "a", LARGE, connected=False), NodeView("2", "b", LARGE)],
            "Task 'w' cannot be placed: b is not in specified_ids; 'zz' is not a node of this "
            "cluster; correct specified_ids: ids or aliases of nodes (manta node list).",
        ),
        (
            {"datasets": ("mnist",)},
            [NodeView("1", "a", LARGE, draining=True), shards("b", 0), shards("c")],
            "Task 'w' cannot be placed: no node that it may run on has the dataset 'mnist' "
            "(there are: 'shard_0'); correct the name, or map it: [datasets] of a node, or "
            "--dataset NAME=PATH. Node b has 'shard_0', wants 'mnist': add it to "
            "[datasets.mappings] of its configuration.",
        ),
        (
            {"resources": ResourceSpec(labels=(("room", "b"), ("row", "2")))},
            [NodeView("1", "a", LARGE)],
            "Task 'w' cannot be placed: a has the label room = 'a', 'b' is asked for; correct the "
            "label, or give it to a node ([labels] of its configuration). Node a lacks no more "
            'than that: add room = "b", row = "2" to [labels] of its configuration.',
        ),
        (
            {"resources": ResourceSpec(gpu=4, gpu_memory=24 * GIB)},
            [
                NodeView(
                    "2",
                    "node-2",
                    Capabilities(gpus=(GpuInfo("A", 24 * GIB), GpuInfo("A", 24 * GIB))),
                    load=Load(gpu_room=(-1, 24 * GIB)),
                )
            ],
            "Task 'w' cannot be placed: node-2 has 2 GPUs, of which 1 is free, 4 GPUs of 24 GiB "
            "are asked for; ask for fewer GPUs or less of their memory, or add a node that has "
            "them.",
        ),
        (
            {"resources": ResourceSpec(cpu=99)},
            [NodeView(str(n), f"n{n}", LARGE) for n in range(5)],
            "Task 'w' cannot be placed: n0 has 8 cores, 99 are asked for; n1 has 8 cores, 99 are "
            "asked for; n2 has 8 cores, 99 are asked for; likewise 2 more; "
            "ask for less, or add a larger node.",
        ),
    ],
)
def test_problems_name_the_task_and_the_remedy(asked, nodes, problem):
    assert place(demand(**asked), nodes).problems == (problem,)


def test_datasets_that_no_node_has_together():
    halves = [
        NodeView(n, n, Capabilities(datasets=(DatasetInfo(n, 1, "npz"),))) for n in ("a", "b")
    ]
    (problem,) = place(demand(datasets=("a", "b")), halves).problems
    assert "has all of the datasets 'a', 'b'" in problem


# Methods.


@pytest.mark.parametrize(
    ("method", "maximum", "count"),
    [
        ("all", -1, 5), ("all", 3, 3), ("all", 9, 5), ("all", 0.5, 2), ("all", 0.01, 1),
        ("all", 1.0, 5), ("all", 1, 1), ("any", -1, 1), ("any", 2, 2), ("any", 0.4, 2),
        ("random", -1, 5), ("random", 2, 2), ("random", 0.4, 2),
        ("best_resources", -1, 5), ("best_resources", 2, 2),
    ],
)  # fmt: skip
def test_how_many(method, maximum, count):
    assert len(set(nodes_of(place(demand(method, maximum=maximum), views(5))))) == count


def test_instances_follow_the_aliases_of_their_nodes():
    assert nodes_of(place(demand(), reversed(views(11)))) == [f"id{n}" for n in range(1, 12)]


def test_any_takes_the_least_loaded_then_the_warm_then_the_first():
    busy = [NodeView(f"id{n}", f"node-{n}", Capabilities(), assigned=a)
            for n, a in ((1, 2), (2, 1), (3, 1), (4, 1))]  # fmt: skip
    assert nodes_of(place(demand("any"), busy)) == ["id2"]
    assert nodes_of(place(demand("any", previous=("id4",)), busy)) == ["id4"]
    assert nodes_of(place(demand("any", previous=("id1",)), busy)) == ["id2"]
    assert nodes_of(place(demand("any", holding={"id2": 1, "id4": 1}), busy)) == ["id3"]
    wide = NodeView("id5", "node-5", Capabilities(max_concurrent_tasks=8), assigned=4)
    assert nodes_of(place(demand("any"), [*busy, wide])) == ["id5"]


def test_all_with_a_maximum_takes_the_least_loaded():
    loaded = views(4)
    outcome = place(demand(maximum=2, holding={"id1": 2, "id3": 1}), loaded)
    assert nodes_of(outcome) == ["id2", "id4"]
    refused = [v for v in outcome.verdicts if not v.accepted]
    assert {v.rule for v in refused} == {"maximum"}
    assert refused[0].reason == "not taken: all takes 2 of 4 eligible nodes, least loaded"


def test_best_resources():
    nodes = [
        NodeView("few", "a", Capabilities(cores=2, memory=64)),
        NodeView("busy", "b", Capabilities(cores=8), load=Load(cpu_usage=0.9)),
        NodeView("many", "c", Capabilities(cores=8), load=Load(cpu_usage=0.1)),
        NodeView("gpu", "d", Capabilities(cores=1, gpus=(GpuInfo("A", 1),))),
    ]
    assert nodes_of(place(demand("best_resources", maximum=1), nodes)) == ["many"]
    assert nodes_of(place(demand("best_resources", maximum=1, gpu=True), nodes)) == ["gpu"]


def test_replicas_are_the_total_and_spread():
    for method in ("all", "any", "random", "best_resources"):
        got = nodes_of(place(demand(method, replicas=5), views(2)))
        assert sorted(map(got.count, ("id1", "id2"))) == [2, 3]
    assert set(nodes_of(place(demand("any", replicas=4, maximum=1), views(2)))) == {"id1"}
    assert len(nodes_of(place(demand(replicas=2), views(5)))) == 2


@given(
    seed=st.integers(0, 2**31), iteration=st.integers(0, 50), count=st.integers(1, 30),
    cut=st.floats(0.05, 0.95),
)  # fmt: skip
@settings(max_examples=60)
def test_random_parts_are_disjoint_and_repeatable(seed, iteration, count, cut):
    nodes = views(count)
    asked = {"seed": seed, "iteration": iteration}
    first = nodes_of(place(demand("random", maximum=cut, **asked), nodes))
    rest = demand("random", maximum=1 - cut, before=(cut,), **asked)
    second = nodes_of(place(rest, list(reversed(nodes))))
    if count > 1 and len(first) + len(second) <= count:
        assert not set(first) & set(second)
        assert abs(len(first) + len(second) - count) <= 1
    assert first == nodes_of(place(demand("random", maximum=cut, **asked), nodes[::-1]))
    counted = demand("random", maximum=1, before=(len(first),), **asked)
    if len(first) < count:
        assert not set(nodes_of(place(counted, nodes))) & set(first)


def test_random_parts_of_two_tasks_cover_all_nodes():
    worker, tester = demand("random", maximum=0.8), demand("random", maximum=0.2, before=(0.8,))
    reverse = demand("random", maximum=0.2), demand("random", maximum=0.8, before=(0.2,))
    for count, both in itertools.product(range(2, 40), ((worker, tester), reverse)):
        a, b = (set(nodes_of(place(d, views(count)))) for d in both)
        assert not a & b
        assert len(a | b) == count


def test_random_draws_again_in_each_iteration():
    draws = {
        tuple(nodes_of(place(demand("random", maximum=3, iteration=i), views(9))))
        for i in range(20)
    }
    assert len(draws) > 5


def test_fixed_takes_those_of_the_first_in_their_order():
    kept = ("id3", "id1")
    assert nodes_of(place(demand("random", kept=kept), views(4))) == ["id3", "id1"]
    gone = [*views(2), NodeView("id3", "node-3", Capabilities(), connected=False)]
    (problem,) = place(demand(kept=kept), gone).problems
    assert "it is fixed, and node-3 is not connected" in problem


@pytest.mark.parametrize("method", ["any", "random", "best_resources", "all"])
def test_replacing_avoids_and_falls_back(method):
    again = demand(method, replace=(2,), avoid=("id1", "id2"), replicas=3)
    for count, expected in ((3, "id3"), (2, None)):
        (placement,) = place(again, views(count)).placements
        assert placement.index == 2
        assert expected in (None, placement.node_id)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ({}, True),
        ({"maximum": 0.5}, True),
        ({"maximum": 2}, False),
        ({"maximum": 3}, False),
        ({"maximum": 4}, True),
        ({"method": "any"}, False),
        ({"method": "random", "maximum": 1}, True),
        ({"method": "best_resources", "maximum": 1}, False),
        ({"method": "tag-x", "producers": ("id1", "id4")}, True),
        ({"method": "tag-x", "producers": ("id1",)}, False),
        ({"excepted_ids": ("node-4",)}, False),
        ({"replicas": 9}, False),
        ({"replace": (0,), "avoid": ("id4",)}, False),
    ],
)
def test_a_link_that_drops_for_a_moment_is_waited_for(asked, waits):
    away = NodeView("id4", "node-4", Capabilities(), connected=False, returning=True)
    here = [*views(3), away]
    outcome = place(demand(**asked), here)
    assert bool(outcome.problems) is waits
    if waits:
        assert outcome.problems[0].startswith("Task 'w' waits for node-4, whose connection was")
    gone = [*here[:3], NodeView("id4", "node-4", Capabilities(), connected=False)]
    assert not place(demand(**asked), gone).problems
    alone = place(demand("any"), here[3:])
    assert alone.problems[0].startswith("Task 'w' waits for node-4")


# Whole swarms.


def spec(*tasks, **changes):
    return SwarmSpec(name="s", tasks=tasks, modules=(ModuleSpec("m"),), **changes)


def test_check_places_all_tasks():
    plan = check(
        spec(
            TaskSpec("w", "m"),
            TaskSpec("a", "m", (Edge("w"),), method="any"),
            TaskSpec("t", "m", (Edge("a"),), method="tag-x"),
        ),
        views(3),
    )
    assert plan.problems == ()
    assert [(p.task, p.node_alias) for p in plan.placements] == [
        ("w", "node-1"), ("w", "node-2"), ("w", "node-3"), ("a", "node-1"), ("t", "node-1"),
    ]  # fmt: skip
    assert len(plan.verdicts) == 9


def test_check_does_not_wait_for_links():
    away = NodeView("id3", "node-3", Capabilities(), connected=False, returning=True)
    plan = check(spec(TaskSpec("w", "m")), [*views(2), away])
    assert not plan.problems
    assert len(plan.placements) == 2


def test_check_spreads_what_runs_at_the_same_time():
    plan = check(spec(*(TaskSpec(f"t{n}", "m", method="any") for n in range(4))), views(4))
    assert {p.node_id for p in plan.placements} == {"id1", "id2", "id3", "id4"}


def test_check_collects_every_problem_once():
    plan = check(
        spec(
            TaskSpec("w", "m", datasets=("none",)),
            TaskSpec("t", "m", (Edge("w"),), method="tag-x"),
            TaskSpec("g", "m", (Edge("t"),), gpu=True),
            TaskSpec("e", "m", (Edge("g"),), excepted_ids=("typo", "node-1")),
        ),
        views(2),
    )
    assert len(plan.problems) == 3
    assert "Task 'w'" in plan.problems[0]
    assert "Task 'g'" in plan.problems[1]
    assert plan.problems[2] == (
        "Task 'e' has 'typo' in excepted_ids, which is not a node of this cluster; "
        "correct it (manta node list)."
    )


NAMED = [("ab1", "one"), ("ab2", "two"), ("b3", "beta")]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"specified_ids": ("beta",)}, ""),
        ({"specified_ids": ("ab1",), "excepted_ids": ("b",)}, ""),
        ({"excepted_ids": ("ab",)}, "'ab' in excepted_ids, which may be any of ab1, ab2; give"),
        ({"specified_ids": ("b", "c")}, "'c' in specified_ids, which is not a node of this"),
        (
            {"specified_ids": ("ab1", "beta"), "excepted_ids": ("b",)},
            "node b3 in specified_ids (as 'beta') and in excepted_ids (as 'b'); take it out",
        ),
    ],
)
def test_nodes_are_named_by_id_alias_or_a_unique_beginning(names, problem):
    nodes = [NodeView(id_, alias, Capabilities()) for id_, alias in NAMED]
    plan = check(spec(TaskSpec("w", "m", **names)), nodes)
    if problem:
        [said] = plan.problems
        assert problem in said
    else:
        assert plan.problems == ()
        [placed] = plan.placements
        assert placed.node_id == ("ab1" if "excepted_ids" in names else "b3")


def test_check_of_a_root_by_tag():
    plan = check(spec(TaskSpec("t", "m", method="tag-x")), views(1))
    assert "node-1 wrote no result 'x'" in plan.problems[0]


@pytest.mark.parametrize(
    ("tasks", "flaw"),
    [
        ([], "has no task"),
        ([TaskSpec("a", "m"), TaskSpec("a", "m")], "'a' is used twice"),
        ([TaskSpec("a", "x")], "the module 'x', which the swarm does not bring"),
        ([TaskSpec("a", "m", (Edge("b"),))], "after 'b', which is not a task"),
        ([TaskSpec("a", "m", (Edge("b"),)), TaskSpec("b", "m", (Edge("a"),))], "a cycle"),
        ([TaskSpec("a", "m", (Edge("a"),))], "a cycle"),
        ([TaskSpec("b", "m"), TaskSpec("a", "m", (Edge("b", "LATER"),))], "condition 'LATER'"),
        ([TaskSpec("a", "m", method="some")], "the method 'some' is unknown"),
        ([TaskSpec("a", "m", method="tag-")], "the method 'tag-' is unknown"),
        ([TaskSpec("a", "m", maximum=0)], "maximum=0 is not a count"),
        ([TaskSpec("a", "m", maximum=-2)], "maximum=-2 is not a count"),
        ([TaskSpec("a", "m", maximum=1.5)], "maximum=1.5 is not a fraction"),
        ([TaskSpec("a", "m", maximum=float("nan"))], "is not a fraction"),
        ([TaskSpec("a", "m", replicas=0)], "replicas=0"),
        ([TaskSpec("a", "m", retries=-1)], "retries=-1"),
        ([TaskSpec("a", "m", quorum=1.1)], "quorum=1.1"),
        ([TaskSpec("a", "m", deadline=0.0)], "deadline=0"),
        ([TaskSpec("a", "m", timeout=float("inf"))], "timeout=inf"),
        ([TaskSpec("a", "m", specified_ids=("x",), excepted_ids=("x",))], "'x' is in specified_"),
    ],
)
def test_flaws(tasks, flaw):
    found = flaws(spec(*tasks))
    assert any(flaw in sentence for sentence in found)
    assert all(sentence.endswith(".") for sentence in found)
    assert check(spec(*tasks), views(2)).problems == found


def test_flaws_of_the_swarm():
    assert "max_iteration is 0" in flaws(spec(TaskSpec("a", "m"), max_iteration=0))[0]
    twice = SwarmSpec("s", (TaskSpec("a", "m"),), (ModuleSpec("m"), ModuleSpec("m")))
    assert "one name" in flaws(twice)[0]
    assert not flaws(spec(TaskSpec("a", "m", method="tag-x", quorum=1.0, maximum=1.0)))


# Images, and levels of isolation.

PLAIN = Capabilities(runners=("bwrap",))


def test_an_image_alone_is_not_placed_where_there_is_no_engine() -> None:
    alone = demand(module=ModuleSpec("m", image="redis:7"))
    plain = NodeView("id1", "node-1", PLAIN)
    engine = NodeView("id2", "node-2", Capabilities(runners=("docker",)))
    outcome = place(alone, [plain])
    assert "node-1 has no container engine, and module 'm' is an image alone" in outcome.problems[0]
    assert "add a node with a container engine" in outcome.problems[0]
    assert nodes_of(place(alone, [plain, engine])) == ["id2"]


def test_an_image_that_is_not_used_is_said() -> None:
    package = BlobRef("0" * 64, 1)
    asked = demand(module=ModuleSpec("m", package, image="manta_light:pytorch"))
    outcome = place(asked, [NodeView("id1", "node-1", PLAIN)])
    assert nodes_of(outcome) == ["id1"]
    assert "the image 'manta_light:pytorch' is not used" in outcome.verdicts[0].reason


@pytest.mark.parametrize(
    ("asked", "runners", "image", "refused"),
    [
        ("bwrap", ("bwrap",), None, ""),
        ("landlock", ("bwrap",), None, ""),
        ("docker", ("bwrap",), None, "isolates it by 'bwrap', 'docker' is asked for"),
        ("bwrap", ("process",), None, "isolates it by 'limits', 'bwrap' is asked for"),
        ("docker", ("docker", "bwrap"), "python:3.12", ""),
        ("docker", ("docker", "bwrap"), None, "(a module that names an image, by 'docker')"),
    ],
)
def test_a_task_is_isolated_at_least_as_it_asks(
    asked: str, runners: tuple[str, ...], image: str | None, refused: str
) -> None:
    module = ModuleSpec("m", BlobRef("0" * 64, 1), image, resources=ResourceSpec(isolation=asked))
    node = NodeView("id1", "node-1", Capabilities(runners=runners))
    outcome = place(demand(module=module), [node])
    if not refused:
        assert nodes_of(outcome) == ["id1"]
        return
    assert refused in outcome.problems[0]
    assert "let a node have what the level needs (manta_node doctor)" in outcome.problems[0]


def test_a_level_that_there_is_not_is_a_flaw() -> None:
    task = TaskSpec("a", "m", resources=ResourceSpec(isolation="jail"))
    assert "Task 'a' asks for the isolation 'jail'; use one of limits" in flaws(spec(task))[0]


@pytest.mark.parametrize(
    ("asked", "flaw"),
    [
        (ResourceSpec(cpu=-1), "asks for cpu=-1; give 0 or more"),
        (ResourceSpec(cpu=float("nan")), "asks for cpu=nan; give 0 or more"),
        (ResourceSpec(gpu_memory=-5), "asks for gpu_memory=-5; give 0 or more"),
        (ResourceSpec(gpu=0, gpu_memory=5), "asks for gpu=0 with gpu_memory; leave one of them"),
        (ResourceSpec(gpu=1, gpu_shared=True), "does not say how much it needs; give gpu_memory"),
        (ResourceSpec(labels=(("a", "b"),) * 101), "asks for 101 labels; give at most 100"),
    ],
)
def test_no_client_is_trusted_with_what_a_task_asks_for(asked, flaw):
    [found] = flaws(spec(TaskSpec("a", "m", resources=asked)))
    assert flaw in found


@pytest.mark.parametrize("line", ["-e .", "a @ https://elsewhere.example/a.whl", "a===${HOME}"])
def test_no_client_is_trusted_with_what_a_module_requires(line):
    module = ModuleSpec("m", BlobRef("0" * 64, 1), requirements=("humanize", line))
    swarm = SwarmSpec("s", (TaskSpec("a", "m"),), (module,))
    [found] = flaws(swarm)
    assert "Module 'm' has a requirement that can't be" in found
    assert check(swarm, views(2)).problems == (found,)


def test_no_client_is_trusted_with_where_a_module_connects_to():
    module = ModuleSpec("m", BlobRef("0" * 64, 1), outbound=("outbound:here",))
    assert (
        "Module 'm' asks for a network that can't be"
        in flaws(SwarmSpec("s", (TaskSpec("a", "m"),), (module,)))[0]
    )


def test_a_plan_says_at_which_level_each_instance_runs() -> None:
    nodes = [
        NodeView(f"id{i}", f"n{i}", Capabilities(runners=(level,)))
        for i, level in enumerate(LEVELS)
    ]
    module = ModuleSpec("m", BlobRef("0" * 64, 1))
    plan = check(SwarmSpec("s", (TaskSpec("a", "m"),), (module,)), nodes)
    assert [placed.isolation for placed in plan.placements] == [*LEVELS]


# Instances that wait for each other.


@pytest.mark.parametrize(
    ("replicas", "count", "module", "fits"),
    [
        (4, 2, None, True),
        (5, 2, None, False),
        (6, 3, None, True),
        (2, 1, None, True),
        (3, 1, None, False),
        (2, 2, ModuleSpec("m", resources=ResourceSpec(cpu=1.0)), True),
        (3, 2, ModuleSpec("m", resources=ResourceSpec(cpu=1.0)), False),
    ],
)
def test_replicas_that_wait_for_each_other_have_a_place_each(replicas, count, module, fits):
    asked = demand(replicas=replicas, meets="barrier", module=module)
    outcome = place(asked, views(count))
    if fits:
        assert len(nodes_of(outcome)) == replicas
        return
    [problem] = outcome.problems
    assert problem.startswith(
        f"Task 'w' cannot be placed: all its {replicas} instances wait for each other (barrier)"
    )
    assert "some would be queued behind those that wait for them" in problem
    assert place(demand(replicas=replicas, module=module), views(count)).problems == ()


def test_the_number_of_replicas_that_would_fit_is_the_largest_that_does():
    nodes = [
        NodeView(f"id{n}", f"node-{n}", Capabilities(max_concurrent_tasks=room))
        for n, room in enumerate((4, 1, 3), 1)
    ]
    [problem] = place(demand(replicas=20, meets="all_reduce"), nodes).problems
    most = int(problem.partition("at most ")[2].partition(" ")[0])
    assert not place(demand(replicas=most, meets="all_reduce"), nodes).problems
    assert place(demand(replicas=most + 1, meets="all_reduce"), nodes).problems


def test_a_task_without_replicas_has_one_instance_on_each_node():
    assert len(nodes_of(place(demand(meets="barrier"), views(5)))) == 5


def test_replicas_that_never_fit_are_refused_before_anything_runs():
    spec = SwarmSpec("s", (TaskSpec("w", "m", replicas=9, meets="barrier"),), (ModuleSpec("m"),))
    assert "at most 4 replicas" in check(spec, views(2)).problems[0]
    assert check(spec, views(5)).problems == ()
