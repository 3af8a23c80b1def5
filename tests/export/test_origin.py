import json

import pytest
import torch
from torch import Tensor

from export.losses import bce
from export.origin import Recorder, place_of_error, place_of_operator, places_of
from tests.export.probe import place


def test_an_operator_has_the_line_that_asked_for_it() -> None:
    def loss(x: Tensor) -> Tensor:
        first = x.exp().clone()
        return bce(first, x)  # here

    recorder = Recorder()
    with recorder:
        loss(torch.zeros(3))
    places = places_of(recorder.calls)
    # Not the line of this package that the operator is in.
    assert place_of_operator(places, "aten.log1p") == ""
    logits = "aten.binary_cross_entropy_with_logits"
    for name in (logits, f"{logits}_backward"):
        assert place_of_operator(places, name).startswith(place(loss))  # type: ignore[arg-type]
    assert "first = x.exp()" in place_of_operator(places, "prims.exp")


def test_who_tries_a_loss_is_not_blamed_for_it() -> None:
    recorder = Recorder()
    with recorder:
        bce(torch.zeros(3), torch.zeros(3))
    assert {call.place for call in recorder.calls} == {""}


def test_an_error_has_the_last_personal_line_it_passed() -> None:
    def parse() -> object:
        return json.loads("{")  # here

    with pytest.raises(ValueError, match="Expecting") as caught:
        parse()
    assert place_of_error(caught.value).startswith(place(parse))  # type: ignore[arg-type]


def test_what_an_error_comes_from_says_where() -> None:
    def divide() -> float:
        return 1 / 0  # here

    def wrap() -> None:
        try:
            divide()
        except ZeroDivisionError as error:
            raise RuntimeError("wrapped") from error

    with pytest.raises(RuntimeError) as caught:
        wrap()
    assert place_of_error(caught.value).startswith(place(divide))  # type: ignore[arg-type]
