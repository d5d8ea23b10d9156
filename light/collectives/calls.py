"""What both ways of collectives have in common: how calls are numbered, named and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from manta.light.context import current
from manta.light.reduction import check_forms, form_of

AUTO, ALIVE = "auto", "alive"


def next_number(count: int) -> int:
    """Of the attempt's collectives, of which so many are taken."""
    brief = current().brief
    number = brief.collectives
    brief.collectives += count
    return number


def named(operation: str, **options: Any) -> str:
    """A collective with the options that must be the same for all instances; None is left out."""
    given = ", ".join(f"{name}={value!r}" for name, value in options.items() if value is not None)
    return f"{operation}({given})"


def forms_of(value: Any, own: Sequence[Any]) -> list[str]:
    """Of what is to be reduced and scattered: of the whole, and of the parts of a list."""
    return [form_of(value), *(map(form_of, own) if isinstance(value, list | tuple) else ())]


def check_parts(told: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Checks that such forms, by rank, agree. Raises CollectiveError."""
    for at in range(len(told[0][1])):
        where = f"value[{at - 1}]" if at else "value"
        check_forms([(rank, forms[at]) for rank, forms in told], where)


def enough(quorum: float | str | None, size: int) -> int:
    """How many values a quorum is; without one, and of those that are alive, one is."""
    if not isinstance(quorum, float):
        return 1
    return max(1, math.ceil(quorum * size - 1e-9))
