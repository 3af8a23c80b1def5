"""Rules: what is refused and how it says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merging import RowCorrection, Rule, RuleError, Weighting


@given(
    st.builds(
        Rule,
        buffer_size=st.integers(1, 100_000),
        max_wait_s=st.floats(0.01, 1e7),
        staleness_exponent=st.floats(0, 10),
        server_learning_rate=st.floats(0.001, 100),
        weighting=st.sampled_from(Weighting),
        row_correction=st.sampled_from(RowCorrection),
        row_clip=st.floats(0, 1e9),
        trim=st.floats(0, 0.49),
    )
)
def test_round_trip(rule: Rule) -> None:
    assert Rule.from_dict(rule.to_dict()) == rule


def test_missing_keys_take_their_defaults() -> None:
    assert Rule.from_dict({"buffer_size": 5}) == Rule(buffer_size=5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("buffer_size", 0),
        ("buffer_size", 2.5),
        ("buffer_size", True),
        ("max_wait_s", 0.0),
        ("max_wait_s", float("nan")),
        ("staleness_exponent", -0.5),
        ("server_learning_rate", 0),
        ("weighting", "median"),
        ("row_clip", -1.0),
        ("trim", 0.5),
        ("krum_byzantine", 249),
        ("row_correction", None),
    ],
)
def test_a_refusal_names_key_and_value(key: str, value: object) -> None:
    with pytest.raises(RuleError, match=rf"rule\.{key} is {value!r}; expected"):
        Rule.from_dict({key: value})


@pytest.mark.parametrize("buffer_size", [20, 501])
def test_krum_needs_a_buffer_that_it_can_compare(buffer_size: int) -> None:
    assert Rule(buffer_size=21, krum_byzantine=9).krum_byzantine == 9
    with pytest.raises(RuleError, match=f"buffer_size is {buffer_size}; expected 21 to 500"):
        Rule(buffer_size=buffer_size, krum_byzantine=9)


@pytest.mark.parametrize("values", [{"bufer_size": 3}, [1], None])
def test_what_is_not_a_rule_is_refused(values: object) -> None:
    with pytest.raises(RuleError):
        Rule.from_dict(values)
