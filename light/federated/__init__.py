"""Federated algorithms over `{name: array}`: `from manta.light import federated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manta.light.federated.adaptive import FedAdagrad, FedAdam, FedYogi
    from manta.light.federated.arrays import delta, kinds, squared_norm
    from manta.light.federated.asynchronous import FedBuff
    from manta.light.federated.averaging import FedAvg, FedAvgM, FedProx
    from manta.light.federated.compression import Compressed, EightBit, OneBit, RandomK, TopK
    from manta.light.federated.drift import SCAFFOLD, FedDyn, FedNova
    from manta.light.federated.personal import Ditto, FedBN
    from manta.light.federated.robust import (
        Clipped,
        GeometricMedian,
        Krum,
        Median,
        MultiKrum,
        TrimmedMean,
        clip,
    )
    from manta.light.federated.rounds import Client, Outcome, Round, Sent, Strategy, aggregate
    from manta.light.federated.sampling import (
        sample_by_availability,
        sample_by_size,
        sample_uniform,
    )
    from manta.light.federated.stopping import Plateau, Reached, StoppingRule
    from manta.light.federated.tasks import (
        Aggregator,
        Evaluated,
        Evaluator,
        Scheduler,
        Trained,
        Worker,
    )

_MODULES = {
    "adaptive": ("FedAdagrad", "FedAdam", "FedYogi"),
    "arrays": ("delta", "kinds", "squared_norm"),
    "asynchronous": ("FedBuff",),
    "averaging": ("FedAvg", "FedAvgM", "FedProx"),
    "compression": ("Compressed", "EightBit", "OneBit", "RandomK", "TopK"),
    "drift": ("FedDyn", "FedNova", "SCAFFOLD"),
    "personal": ("Ditto", "FedBN"),
    "robust": (
        *("Clipped", "GeometricMedian", "Krum", "Median", "MultiKrum", "TrimmedMean"),
        "clip",
    ),
    "rounds": ("Client", "Outcome", "Round", "Sent", "Strategy", "aggregate"),
    "sampling": ("sample_by_availability", "sample_by_size", "sample_uniform"),
    "stopping": ("Plateau", "Reached", "StoppingRule"),
    "tasks": ("Aggregator", "Evaluated", "Evaluator", "Scheduler", "Trained", "Worker"),
}
_SUBMODULES = ("adapters", "errors", "statistics")

__all__ = [
    "SCAFFOLD",
    "Aggregator",
    "Client",
    "Clipped",
    "Compressed",
    "Ditto",
    "EightBit",
    "Evaluated",
    "Evaluator",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBN",
    "FedBuff",
    "FedDyn",
    "FedNova",
    "FedProx",
    "FedYogi",
    "GeometricMedian",
    "Krum",
    "Median",
    "MultiKrum",
    "OneBit",
    "Outcome",
    "Plateau",
    "RandomK",
    "Reached",
    "Round",
    "Scheduler",
    "Sent",
    "StoppingRule",
    "Strategy",
    "TopK",
    "Trained",
    "TrimmedMean",
    "Worker",
    "aggregate",
    "clip",
    "delta",
    "kinds",
    "sample_by_availability",
    "sample_by_size",
    "sample_uniform",
    "squared_norm",
]


def __getattr__(name: str) -> object:
    """Imports a name's module when the name is asked for: a task pays for what it uses."""
    import importlib

    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
