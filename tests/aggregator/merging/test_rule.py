"""Rules: what they take, what is refused and how it says so, and how one is changed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import Kind, Optimizer, RowCorrection, Rule, RuleError, Staleness
from tests.aggregator.merging.fleet import WAYS, rules

any_rule = st.sampled_from(WAYS).flatmap(lambda way: rules(*way))


@given(any_rule)
def test_round_trip(rule: Rule) -> None:
    assert Rule.from_dict(rule.to_dict()) == rule


@given(any_rule, any_rule)
def test_any_rule_can_be_changed_into_any_other(one: Rule, other: Rule) -> None:
    assert one.changed(other.to_dict()) == other
    assert one.changed({}) == one
    words = {key: value for key, value in other.to_dict().items() if isinstance(value, str)}
    assert one.changed(words).kind is other.kind


def test_missing_keys_take_their_defaults() -> None:
    assert Rule.from_dict({"buffer_size": 5}) == Rule(buffer_size=5)
    assert Rule().kind is Kind.FEDBUFF


def test_rules_from_before_there_were_kinds_are_read() -> None:
    stored = {
        "buffer_size": 3,
        "max_wait_s": 1.5,
        "staleness_exponent": 0.25,
        "server_learning_rate": 2.0,
        "weighting": "examples",
        "row_correction": "touched",
    }
    rule = Rule.from_dict(stored)
    assert {key: rule.to_dict()[key] for key in stored} == stored
    assert (rule.kind, rule.staleness) == (Kind.FEDBUFF, Staleness.POLYNOMIAL)
    assert rule.optimizer is Optimizer.SGD


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("fedavg", {"buffer_size": 20, "optimizer": "sgd", "server_learning_rate": 1.0}),
        ("fedasync", {"buffer_size": 1, "staleness": "polynomial", "server_learning_rate": 1.0}),
        ("fadas", {"optimizer": "amsgrad", "delay_threshold": 1, "server_learning_rate": 0.01}),
        ("ca2fl", {"weighting": "uniform", "row_correction": "none"}),
    ],
)
def test_a_kind_is_enough(kind: str, expected: dict[str, Any]) -> None:
    assert expected.items() <= Rule.from_dict({"kind": kind}).to_dict().items()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "fedsgd"),
        ("kind", ["fedavg"]),
        ("buffer_size", 0),
        ("buffer_size", 2.5),
        ("buffer_size", True),
        ("max_wait_s", 0.0),
        ("max_wait_s", float("nan")),
        ("staleness", "exponential"),
        ("staleness_exponent", -0.5),
        ("staleness_scope", "table"),
        ("participation_limit", 0.5),
        ("optimizer", "lamb"),
        ("server_learning_rate", 0),
        ("weighting", "median"),
        ("row_clip", -1.0),
        ("trim", 0.5),
        ("krum_byzantine", 249),
        ("row_correction", None),
    ],
)
def test_a_refusal_names_key_and_value(key: str, value: object) -> None:
    shown = repr(value).replace("[", r"\[")
    with pytest.raises(RuleError, match=rf"rule\.{key} is {shown}; expected"):
        Rule.from_dict({key: value})


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ({}, "momentum", 0.5),
        ({}, "delay_threshold", 3),
        ({}, "heat_limit", 3.0),
        ({"staleness": "hinge"}, "staleness_exponent", 0.5),
        ({"kind": "fedavg"}, "staleness", "constant"),
        ({"kind": "ca2fl"}, "participation_exponent", 1.0),
        ({"kind": "ca2fl"}, "trim", 0.1),
        ({"kind": "fedasync"}, "row_clip", 2.0),
        ({"optimizer": "adagrad"}, "beta_2", 0.9),
    ],
)
def test_a_key_that_the_words_do_not_take_is_refused(
    words: dict[str, Any], key: str, value: object
) -> None:
    with pytest.raises(RuleError, match=rf"rule\.{key} is {value!r}; expected no such key"):
        Rule.from_dict({**words, key: value})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("fedasync", "buffer_size", 20),
        ("fedasync", "server_learning_rate", 1.5),
        ("fedasync", "optimizer", "adam"),
        ("ca2fl", "weighting", "examples"),
        ("ca2fl", "row_correction", "heat"),
    ],
)
def test_a_kind_narrows_what_is_allowed(kind: str, key: str, value: object) -> None:
    with pytest.raises(RuleError, match=rf"rule\.{key} is {value!r}; expected"):
        Rule.from_dict({"kind": kind, key: value})


@pytest.mark.parametrize("buffer_size", [20, 501])
def test_krum_needs_a_buffer_that_it_can_compare(buffer_size: int) -> None:
    assert Rule(buffer_size=21, krum_byzantine=9).krum_byzantine == 9
    with pytest.raises(RuleError, match=f"buffer_size is {buffer_size}; expected 21 to 500"):
        Rule(buffer_size=buffer_size, krum_byzantine=9)


@pytest.mark.parametrize("values", [{"bufer_size": 3}, [1], None, {3: 1}])
def test_what_is_not_a_rule_is_refused(values: object) -> None:
    with pytest.raises(RuleError):
        Rule.from_dict(values)


def test_a_change_keeps_what_means_the_same() -> None:
    rule = Rule(buffer_size=7, server_learning_rate=3.0, row_correction=RowCorrection.TOUCHED)
    assert rule.changed({"optimizer": "momentum"}).server_learning_rate == 3.0
    adam = rule.changed({"optimizer": "adam"})
    assert (adam.server_learning_rate, adam.buffer_size) == (0.01, 7)
    alone = rule.changed({"kind": "fedasync"})
    assert (alone.buffer_size, alone.row_correction) == (1, RowCorrection.NONE)
    assert alone.changed({"kind": "fedbuff"}).buffer_size == 20
    assert rule.changed({"kind": "fadas"}).row_correction is RowCorrection.TOUCHED
    with pytest.raises(RuleError, match=r"rule\.beta_2 is 0\.5"):
        rule.changed({"beta_2": 0.5})


def test_a_rule_says_what_it_needs() -> None:
    needs = {
        "ca2fl": Rule(kind=Kind.CA2FL),
        "heat": Rule(row_correction=RowCorrection.HEAT),
        "participation": Rule(participation_exponent=1.0),
        "none": Rule(),
    }
    assert {name for name, rule in needs.items() if rule.needs_device} == {"ca2fl", "heat"}
    assert {name for name, rule in needs.items() if rule.needs_previous} == {"ca2fl"}
    assert {n for n, rule in needs.items() if rule.needs_device_updates} == {"participation"}
