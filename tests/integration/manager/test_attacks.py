"""`make attack` measures what it says, and says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.attacks.__main__ import attacks, line, wrong
from tests.attacks.field import MIB, Report, Told, Usage, field
from tests.support.documents import ROOT


def test_an_attack_is_measured_beside_a_user_who_goes_on_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT)  # the user and the attacker are processes of their own
    with field(nodes=1, nice=0) as here:  # nicer than a busy machine it would not get far
        for attack in attacks(["long_words", "clusters"]):
            report = here.measure(attack)
            assert (report.ended, report.told.wrong) == ([], ""), report.told
            assert 0 < report.waited < report.took
            assert attack.what in line(attack, report, 0.01)


NOTHING = Usage(0, 0, 0)
GOOD = Report(Told("held"), NOTHING, NOTHING, NOTHING, NOTHING, 0, 0.004, 1.0, [])


@pytest.mark.parametrize(
    ("worse", "sentence"),
    [
        ({"ended": ["manager"]}, "manager ended"),
        ({"told": Told("3 read", "a secret was read")}, "a secret was read"),
        ({"peak": Usage(300 * MIB, 0, 0)}, "the manager grew by 300 MiB"),
        ({"node": Usage(300 * MIB, 0, 0)}, "a node grew by 300 MiB"),
        ({"kept": Usage(0, 20, 0)}, "the manager kept 20 threads, 0 descriptors"),
        ({"node_kept": Usage(0, 0, 10)}, "a node kept 0 threads, 10 descriptors"),
        ({"waited": 0.02}, "a user waited 20 ms"),
        ({"waited": float("inf")}, "a user waited inf ms"),
    ],
)
def test_what_is_wrong_is_said(worse: dict[str, Any], sentence: str) -> None:
    assert wrong(GOOD, most=0.01) == []
    assert wrong(GOOD._replace(**worse), most=0.01) == [sentence]


def test_attacks_are_chosen_by_their_names() -> None:
    everything = attacks([])
    names = [attack.run.__name__ for attack in everything]
    assert len(set(names)) == len(names) > 15
    assert [attack.run.__name__ for attack in attacks(names[:1])] == names[:1]
