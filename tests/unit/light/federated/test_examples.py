"""The worked examples of the docstrings are right, and every algorithm has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

from manta.light import federated

MODULES = [module.name for module in pkgutil.iter_modules(federated.__path__)]
TASKS = {"Aggregator", "Evaluated", "Evaluator", "Scheduler", "Trained", "Worker"}
WITHOUT = {"Client", "Outcome", "Round", "Sent", "StoppingRule", "Strategy", *TASKS}
"""What has no outcome of its own."""
RULES = {"Plateau", "Reached"}


def examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(f"manta.light.federated.{name}")
    public = {key: getattr(federated, key) for key in federated.__all__}
    return doctest.DocTestFinder().find(module, globs={**public, **vars(module)})


@pytest.mark.parametrize("name", MODULES)
def test_examples_come_out_as_they_say(name: str) -> None:
    for example in examples(name):
        said: list[str] = []
        failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
        assert not failed, "".join(said)


@pytest.mark.parametrize("name", sorted(set(federated.__all__) - WITHOUT))
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(federated, name).__doc__ or "")


@pytest.mark.parametrize(
    "name", sorted({*federated.__all__} - WITHOUT - RULES - {"Clipped", "aggregate"})
)
def test_every_algorithm_has_its_formula_or_its_source(name: str) -> None:
    kind = getattr(federated, name)
    if isinstance(kind, type) and name != "Compressed":
        assert re.search(r"arXiv:\d{4}\.\d{5}", kind.__doc__ or "")


def test_names_are_those_of_the_modules() -> None:
    assert sorted(dir(federated)) == sorted(
        {*federated.__all__, "adapters", "errors", "statistics"}
    )
    for name in dir(federated):
        assert getattr(federated, name) is not None
    with pytest.raises(AttributeError, match="FedSGD"):
        _ = federated.FedSGD
