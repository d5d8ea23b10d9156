"""What goes wrong when models are aggregated, by whose fault it is."""

from __future__ import annotations

from manta.light.errors import LightError


class FederatedError(LightError):
    """Root of the errors of `manta.light.federated`."""


class BadModel(FederatedError, ValueError):
    """The caller's own arrays are not what an algorithm can work on."""


class BadState(FederatedError, ValueError):
    """The state that was kept does not belong to this strategy or this model."""


class BadUpdate(FederatedError, ValueError):
    """One client's update can't be aggregated.

    `client` names who sent it, `array` which of its arrays is wrong (None where it is no single
    one), and `reason` says what is wrong with it.
    """

    def __init__(self, client: str, array: str | None, reason: str) -> None:
        what = "" if array is None else f"array {array!r:.80} "
        super().__init__(f"The update of client {client!r:.80} can't be used: {what}{reason}.")
        self.client = client
        self.array = array
        self.reason = f"{what}{reason}"


class BadWeight(BadUpdate):
    """One client's weight is no finite number above 0."""

    def __init__(self, client: str, weight: object) -> None:
        super().__init__(client, None, f"its weight is {weight!r:.60}: give a number above 0")


class NoUpdates(FederatedError):
    """No client's update is there to be aggregated."""


class TooFewUpdates(FederatedError):
    """There are fewer updates than an aggregate is defined for."""


class Overflow(FederatedError, ArithmeticError):
    """What came of finite updates is too large for the model's dtype."""


class RoundFinished(FederatedError, RuntimeError):
    """A round was used after `finish()`."""


class TooFewClients(FederatedError, ValueError):
    """There are fewer clients than are to be drawn, or have to take part."""


class CohortTooSmall(FederatedError):
    """A statistic would be of fewer records, or fewer clients, than may be told."""


class BadDescription(FederatedError, ValueError):
    """A value describes no strategy and no stopping rule that is known here."""


class UnknownMetric(FederatedError, LookupError):
    """A stopping rule looks at a metric that nobody measured."""
