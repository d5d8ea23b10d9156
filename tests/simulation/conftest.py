from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="simulate this seed alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", None)
    first = int(os.environ.get("MANTA_SIMULATION_FIRST", "0"))
    count = int(os.environ.get("MANTA_SIMULATION_SEEDS", "50"))
    seeds = range(first, first + count) if one is None else [one]
    metafunc.parametrize("seed", seeds)
