"""What the tests of functions as tasks take functions from."""

from __future__ import annotations

import enum
import functools
import logging
import os.path
import re
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from manta import Task, task
from tests.support.documents import ROOT as HOME

try:
    import numpy.linalg as fast
except ImportError:
    fast = None  # type: ignore[assignment]

RATE = 0.1
SHAPE = (2, float("inf"))
first, second = 1, 2
third = 3
TABLE = np.zeros(3)
OPENED = sys.stderr
LOCK = threading.Lock()
PATTERN = re.compile("a+")
logger = logging.getLogger(__name__)
Point = namedtuple("Point", "x y")
double = lambda x: 2 * x  # noqa: E731
NOW = datetime.now()


class Pair(NamedTuple):
    left: float
    right: float = RATE


@dataclass(frozen=True)
class Settings:
    rate: float = RATE


SETTINGS = Settings(0.3)


@functools.lru_cache
def scaled(value: float) -> float:
    return value * RATE


def logged(function):
    @functools.wraps(function)
    def call():
        return ["logged", function()]

    return call


def bare(function):
    def call():
        return function()

    return call


def plain():
    return scaled(3.0) + SETTINGS.rate + double(third) + Point(1, 2).y


def imports():
    logger.info("one")
    return os.path.basename("/a/b"), PATTERN.sub("b", "aa"), np.sum([1, 2]), fast is not None


def recursive(n=3):
    return 1 if n == 0 else n * recursive(n - 1)


def given(world, *rest, local=None, results, **others):
    return type(world).__name__, type(local).__name__, type(results).__name__


def even(n=4):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


class Color(enum.Enum):
    RED = 1


COLOR = Color.RED


def colored(color: Color = COLOR):
    return color.name, COLOR.value


@logged
def decorated():
    return SHAPE[0]


@bare
def hidden():
    return 1


@task(retries=2, datasets=["d"])
def a_task(world):
    return Pair(world.rank).right


async def later():
    return first + second


class Base:
    def run(self):
        return self.value()

    def value(self):
        raise NotImplementedError


class Worker(Base):
    rate = RATE

    @property
    def top(self):
        return self.rate

    def value(self):
        return super().__init__.__name__, scaled(1.0), self.rate


def made(k, by=scaled):
    import math

    def inner():
        text = """
        left
    as it is"""
        return k * math.floor(by(10.0)), text

    class Inner(Base):
        def value(self):
            return k + 1

    return inner, Inner


def counting():
    count = 0

    def inner():
        nonlocal count
        count += 1

    return inner


def uses_table():
    return TABLE


def uses_file():
    return OPENED.name


def uses_lock():
    return LOCK


def uses_clock():
    return NOW


def uses_nothing_there():
    return nothing_there  # type: ignore[name-defined]  # noqa: F821


def uses_a_task():
    return a_task


def uses_another_file():
    return HOME


def wants_more(rate):
    return rate


OF_ANOTHER = Task(plain)
