"""What is left of a quota that is nearly used up, and the sentence on what is beyond it."""

from __future__ import annotations

import msgspec


class Allowance(msgspec.Struct, frozen=True, array_like=True):
    """`who` has `have` of `limit`, which comes from `source`; `what` says what is counted, and
    `remedy` what those can do who need more."""

    quota: str
    who: str
    what: str
    source: str
    remedy: str
    have: int
    limit: int

    @property
    def in_bytes(self) -> bool:
        return self.quota.endswith("-bytes")


def exceeded(
    quota: str, who: str, what: str, source: str, remedy: str, have: str, asked: str, limit: str
) -> str:
    """Numbers as they are shown."""
    return (
        f"{who} has {have} {what} and asks for {asked} more, and the quota {quota} is {limit} "
        f"({source}): {remedy}, or ask an administrator for more (manta quota set {quota})."
    )
