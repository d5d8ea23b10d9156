"""What an owner's policy says of a request, and what is wrong with its file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.errors import ConfigError
from manta.node.policy.reading import load, parse
from manta.node.policy.rules import Leaves, Moment, Policy, Request, Rule, Verdict, decide

KEY = "-".join(["0a1b"] * 8)
OTHER = "-".join(["ffff"] * 8)
FILE = Path("policy.toml")
DIGEST = "3f2a77" + "0" * 58
ASKS = Request("ada@uni.example", KEY, "Study", "sums", digest=DIGEST, datasets=("ward",))


def policy(text: str, users: str = f'"ada@uni.example" = ["{KEY}"]') -> Policy:
    return parse(f"{text}\n[users]\n{users}\n", FILE)


def said(text: str, **request: object) -> tuple[str, str]:
    decision = decide(policy(text), msgspec.structs.replace(ASKS, **request), {})
    return decision.verdict.word, decision.why


def test_what_no_rule_speaks_of_is_denied_unless_the_policy_says_otherwise() -> None:
    verdict, why = said("")
    assert verdict == "deny"
    assert "no rule of policy.toml speaks of dataset 'ward' for ada@uni.example" in why
    assert said('otherwise = "allow"')[0] == "allow"
    assert said('otherwise = "ask"')[0] == "ask"


SELECTORS = {
    'users = ["*@uni.example"]': {"user": "eve@lab.example"},
    f'keys = ["{KEY}"]': {"key": OTHER},
    'swarms = ["St*"]': {"swarm": "Other"},
    'modules = ["sum?"]': {"module": "means"},
    'modules = ["digest:3f2a77"]': {"digest": "0" * 64},
    'images = ["none"]': {"image": "pytorch"},
    'datasets = ["ward*"]': {"datasets": ("salaries",)},
}


@pytest.mark.parametrize(("selector", "other"), SELECTORS.items())
def test_a_rule_speaks_of_what_its_selectors_fit(selector: str, other: dict[str, object]) -> None:
    users = f'"ada@uni.example" = ["{KEY}", "{OTHER}"]\n"eve@lab.example" = ["{OTHER}"]'
    found = policy(f"[[rule]]\n{selector}", users)
    assert decide(found, ASKS, {}).verdict is Verdict.ALLOW
    asks = msgspec.structs.replace(ASKS, **other)
    asks = asks if "user" not in other else msgspec.structs.replace(asks, key=OTHER)
    assert "no rule of" in decide(found, asks, {}).why


CONDITIONS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    'hours = "22:00-06:00"': ({"at": Moment(0, 5 * 60)}, {"at": Moment(0, 6 * 60)}),
    'hours = "08:00-18:00"': ({"at": Moment(0, 8 * 60)}, {"at": Moment(0, 18 * 60)}),
    'days = ["mon", "tue"]': ({"at": Moment(1, 0)}, {"at": Moment(2, 0)}),
    'isolation = "bwrap"': ({"isolation": "docker"}, {"isolation": "landlock"}),
    'network = "none"': ({"isolation": "landlock"}, {"isolation": "limits"}),
    'network = "none" ': (
        {"isolation": "bwrap"},
        {"isolation": "bwrap", "outbound": ("outbound:x.example:443",)},
    ),
    "cohort = 5": ({"instances": 5}, {"instances": 4}),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_a_rule_demands_is_denied_where_it_is_not_so(condition: str) -> None:
    right, wrong = CONDITIONS[condition]
    text = f'[[rule]]\nname = "study"\n{condition}'
    assert said(text, **right)[0] == "allow"
    verdict, why = said(text, **wrong)
    assert verdict == "deny"
    assert f'rule "study" (policy.toml, line 1): {condition.strip()}' in why


def test_of_rules_that_contradict_each_other_the_strictest_holds() -> None:
    text = '[[rule]]\n[[rule]]\nname = "wards"\ndatasets = ["ward"]\napprove = "ask"'
    assert said(text) == ("ask", 'rule "wards" (policy.toml, line 2): approve = "ask"')
    assert said(f'{text}\n[[rule]]\napprove = "deny"')[0] == "deny"
    # Of several datasets, that which is least allowed.
    assert said('[[rule]]\ndatasets = ["ward"]', datasets=("ward", "salaries"))[0] == "deny"
    leaves = decide(
        policy(
            '[[rule]]\nresults = ["a*", "b"]\nlargest = "1 MB"\nmost = 9\n'
            '[[rule]]\nresults = ["ab", "b"]\nlargest = "2 KiB"'
        ),
        ASKS,
        {},
    ).leaves
    assert (leaves.largest, leaves.most) == (2048, 9)
    assert leaves.flaw("ab", 10, 0) == leaves.flaw("b", 2048, 8) == ""
    assert "the tag 'aa' is not among" in leaves.flaw("aa", 10, 0)
    assert "what has no tag" in leaves.flaw("", 10, 0)
    assert "2,048 may leave" in leaves.flaw("b", 2049, 0)
    assert "9 values" in leaves.flaw("b", 1, 9)
    assert not leaves.exchange  # what is said to others would go round it


def leaves(*rules: str) -> Leaves:
    return decide(policy("\n".join(f"[[rule]]\n{one}" for one in rules)), ASKS, {}).leaves


def test_lines_leave_unless_what_leaves_is_limited_or_the_policy_says_otherwise() -> None:
    assert leaves("").logs
    assert not leaves('logs = "summary"').logs
    assert not leaves("most = 1").logs
    assert leaves('most = 1\nlogs = "all"').logs
    assert not leaves('logs = "all"', 'logs = "summary"').logs


def test_what_a_failure_says_is_of_the_codes_words() -> None:
    assert not leaves('logs = "summary"').failures
    assert leaves('logs = "summary"\nfailures = "any"').failures
    assert not leaves('most = 1\nlogs = "all"').failures
    assert leaves('logs = "summary"').exchange


SHARE = 'share = "all_reduce"\ncohort = 3'


def test_what_is_shared_in_sums_leaves_in_no_other_way() -> None:
    asks = msgspec.structs.replace(ASKS, instances=5)

    def found(*rules: str) -> Leaves:
        return decide(policy("\n".join(f"[[rule]]\n{one}" for one in rules)), asks, {}).leaves

    alone = found(SHARE)
    assert (alone.alone, alone.sums, alone.exchange) == (False, 3, False)
    assert "as a part of a sum" in alone.flaw("total", 1, 0)
    assert (alone.logs, alone.failures) == (False, False)
    assert found(SHARE, "cohort = 5").sums == 5
    assert found(SHARE, 'exchange = "any"').sums == 3
    assert not found(SHARE, 'exchange = "any"').exchange
    # The strictest holds: another rule lets tasks tell each other nothing at all.
    for other in ('exchange = "none"', 'results = ["total"]'):
        assert (found(SHARE, other).sums, found(SHARE, other).alone) == (0, False)
    assert "its part of sums of 3 nodes or more" in str(alone)
    assert alone.company == 3 < found(SHARE, 'exchange = "none"').company
    assert found("").company == 1


@given(st.lists(st.sampled_from(Verdict), max_size=6), st.sampled_from(Verdict))
def test_another_rule_never_makes_it_less_strict(verdicts: list[Verdict], more: Verdict) -> None:
    rules = tuple(Rule(approve=one) for one in verdicts)
    users = {"ada@uni.example": (KEY,)}
    before = decide(Policy(rules=rules, users=users), ASKS, {}).verdict
    after = decide(Policy(rules=(*rules, Rule(approve=more)), users=users), ASKS, {}).verdict
    assert after is max([more, *verdicts])
    assert not rules or after >= before


# Whose key it is.


def test_who_asks_is_a_key_and_not_the_managers_word() -> None:
    found = policy("[[rule]]")
    replace = msgspec.structs.replace
    assert "nobody has signed" in decide(found, replace(ASKS, key=""), {}).why
    assert "has signed something else" in decide(found, replace(ASKS, forged=True), {}).why
    lies = decide(found, replace(ASKS, user="bob@uni.example"), {})
    assert lies.verdict is Verdict.DENY
    assert lies.why.endswith(f"the key {KEY} is ada@uni.example's")
    other = decide(found, replace(ASKS, key=OTHER), {"ada@uni.example": [OTHER]})
    assert other.verdict is Verdict.DENY  # the policy lists her keys, and this is none of them
    assert "not among those that policy.toml lists" in other.why


def test_a_new_key_is_asked_for_denied_or_taken_if_it_is_the_first() -> None:
    seen = {"ada@uni.example": [OTHER]}
    for words, first, second in (
        ("", "ask", "ask"),
        ('new_keys = "deny"', "deny", "deny"),
        ('new_keys = "first"', "allow", "ask"),
    ):
        found = parse(f"{words}\n[[rule]]", FILE)
        assert decide(found, ASKS, {}).verdict.word == first
        assert decide(found, ASKS, seen).verdict.word == second
        assert decide(found, ASKS, {"ada@uni.example": [KEY]}).verdict.word == "allow"
        assert decide(found, ASKS, {"bob@uni.example": [KEY]}).verdict.word == "deny"


# Its file.


WRONG = {
    'aprove = "ask"': "line 1: there is no key 'aprove'",
    '[[rule]]\naprove = "ask"': "line 2: there is no key 'aprove'; did you mean 'approve'?",
    '[[rule]]\n\n[[rule]]\napprove = "yes"': "line 4: approve is 'yes'; it must be one of",
    '[[rule]]\nusers = "ada"': "line 2: users is 'ada'; it must be a list of texts",
    "[[rule]]\nusers = []": "line 2: users is []; it must be a list of texts",
    '[[rule]]\nhours = "8-17"': "line 2: hours is '8-17'; it must be such as",
    '[[rule]]\nhours = "24:30-06:00"': "line 2: hours is",
    '[[rule]]\ndays = ["monday"]': "line 2: days is",
    '[[rule]]\nmodules = ["digest:xyz"]': "hexadecimal digits",
    '[[rule]]\nkeys = ["0a1b"]': "is no fingerprint",
    '[[rule]]\nisolation = "vm"': "line 2: isolation is 'vm'",
    "[[rule]]\ncohort = 0": "line 2: cohort is 0; it must be a whole number of at least 1",
    '[[rule]]\nlogs = "none"': 'line 2: logs is \'none\'; it must be one of "all", "summary"',
    '[[rule]]\nshare = "sums"': "line 2: share is 'sums'",
    '[[rule]]\nshare = "all_reduce"': "line 2: share says all_reduce, and cohort is 1",
    "[[rule]]\nlargest = 5": "line 2: largest is 5; it must be a size",
    '[rule]\napprove = "ask"': "rule is no list of tables; write [[rule]]",
    "[[rules]]": "line 1: there is no key 'rules'; did you mean 'rule'?",
    '[users]\n"ada" = ["x"]': "line 2: ada is ['x']",
    "[[rule]": "line 1, column 7: it is not TOML",
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.items())
def test_what_is_wrong_is_named_with_its_line_and_opens_nothing(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert sentence in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('otherwise = "no"\n[[rule]]\nuser = ["a"]\nmost = -1', FILE)
    assert [flaw.line for flaw in caught.value.flaws] == [1, 3, 4]


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_is_refused(text: str) -> None:
    try:
        found = parse(text, FILE)
    except ConfigError:
        return
    assert decide(found, ASKS, {}).verdict in Verdict


def test_a_policy_that_others_can_change_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "policy.toml")
    path = tmp_path / "policy.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod"):
        load(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="it is empty"):
        load(path)
    path.write_text("# nothing is allowed")
    assert load(path).otherwise is Verdict.DENY
