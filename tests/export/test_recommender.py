from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce
from export.recommender import (
    BatchInput,
    Recommender,
    batch_inputs,
    example_batch,
    local_copy,
    parameter_specs,
    parameter_values,
    score_inputs,
)
from wire.manifest import BatchKind, ParameterSpec, Role


class Popularity(Recommender):
    """The worked example of the module, with parts that tests replace."""

    kind, batch = "popularity", BatchKind.POINTWISE

    def __init__(self, items: int = 3, **more: nn.Parameter) -> None:
        super().__init__()
        self.items = items
        self.bias_rows = nn.Parameter(torch.zeros(items, 1))
        for name, parameter in more.items():
            self.register_parameter(name, parameter)

    def roles(self) -> Mapping[str, Role]:
        return {"bias_rows": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return bce(self.bias_rows[item].squeeze(1), label)

    def score(self) -> Tensor:
        return self.bias_rows.squeeze(1)


class WithDense(Popularity):
    extra_role = Role.DENSE

    def roles(self) -> Mapping[str, Role]:
        extra = {n: self.extra_role for n, _ in self.named_parameters() if n != "bias_rows"}
        return {**super().roles(), **extra}


class WithSecondTable(WithDense):
    extra_role = Role.ROWS


class WithFrozenTable(WithDense):
    extra_role = Role.FROZEN_ROWS


class WithContent(Popularity):
    """Frozen parameters of all forms: a parameter and two buffers, beside a constant."""

    def __init__(self, items: int) -> None:
        super().__init__(items, scale=nn.Parameter(torch.ones(2)))
        self.register_buffer("content", torch.ones(items, 2))
        self.register_buffer("shift", torch.ones(2), persistent=False)
        self.register_buffer("constant", torch.ones(5))

    def roles(self) -> Mapping[str, Role]:
        frozen = {"scale": Role.FROZEN, "shift": Role.FROZEN, "content": Role.FROZEN_ROWS}
        return {**super().roles(), **frozen}


def test_specs_describe_each_parameter_in_order() -> None:
    assert parameter_specs(WithDense(3, head=nn.Parameter(torch.ones(2)))) == (
        ParameterSpec("bias_rows", Role.ROWS, (3, 1)),
        ParameterSpec("head", Role.DENSE, (2,)),
    )


@pytest.mark.parametrize(
    ("recommender", "message"),
    [
        (Popularity(3, head=nn.Parameter(torch.ones(2))), "'head' has no role"),
        (WithSecondTable(3, head=nn.Parameter(torch.ones(2, 3))), r"expected \[3, width\]"),
        (WithDense(3, item=nn.Parameter(torch.ones(2))), "'item' has the name of a program input"),
        (WithDense(3, h=nn.Parameter(torch.ones(2).double())), "'h' is torch.float64"),
        (WithDense(3, clip=nn.Parameter(torch.ones(2))), "'clip' has the name of a program input"),
        (
            WithDense(3, h=nn.Parameter(torch.ones(2), requires_grad=False)),
            "'h' does not require a gradient; give it the role frozen",
        ),
        (WithFrozenTable(3, h=nn.Parameter(torch.ones(3))), r"role frozen-rows and shape \[3\]"),
    ],
)
def test_a_parameter_that_breaks_a_rule_is_named(recommender: Recommender, message: str) -> None:
    with pytest.raises(RecommenderError, match=message):
        parameter_specs(recommender)


def test_a_role_without_a_parameter_is_named() -> None:
    class Misspelt(Popularity):
        def roles(self) -> Mapping[str, Role]:
            return {"bias_rows": Role.ROWS, "haed": Role.DENSE}

    with pytest.raises(RecommenderError, match="'haed'; the parameters are: bias_rows"):
        parameter_specs(Misspelt())


def test_parameters_that_share_storage_are_named() -> None:
    tied = Popularity()
    tied.other = tied.bias_rows
    view = WithDense(3, part=nn.Parameter(tied.bias_rows.detach()))
    view.bias_rows = tied.bias_rows
    tables = WithContent(3)
    tables.content = tables.bias_rows.detach()
    for recommender, other in ((tied, "other"), (view, "part"), (tables, "content")):
        with pytest.raises(RecommenderError, match=f"'bias_rows' and '{other}' share storage"):
            parameter_specs(recommender)


def test_frozen_parameters_may_be_buffers_and_follow_the_others() -> None:
    assert parameter_specs(WithContent(3)) == (
        ParameterSpec("bias_rows", Role.ROWS, (3, 1)),
        ParameterSpec("scale", Role.FROZEN, (2,)),
        ParameterSpec("content", Role.FROZEN_ROWS, (3, 2)),
        ParameterSpec("shift", Role.FROZEN, (2,)),
    )
    assert list(parameter_values(WithContent(3))) == ["bias_rows", "scale", "content", "shift"]


def test_a_local_copy_has_small_tables_and_leaves_the_original_alone() -> None:
    original = WithDense(1_000, head=nn.Parameter(torch.ones(2)))
    local = local_copy(original, 4)
    assert local.get_parameter("bias_rows").shape == (4, 1)
    assert local.score().shape == (4,)
    with torch.no_grad():
        local.get_parameter("head").zero_()
    assert original.get_parameter("bias_rows").shape == (1_000, 1)
    assert original.get_parameter("head").tolist() == [1.0, 1.0]


def test_in_a_local_copy_all_tables_are_small_and_only_the_trained_want_a_gradient() -> None:
    original = WithContent(1_000)
    local = local_copy(original, 4)
    assert local.get_buffer("content").shape == (4, 2)
    assert {n for n, p in local.named_parameters() if p.requires_grad} == {"bias_rows"}
    assert original.get_buffer("content").shape == (1_000, 2)
    assert original.get_parameter("scale").requires_grad


def declared(batch: BatchKind, history: int = 0, context: Mapping[str, int] | None = None) -> Any:
    recommender = Popularity()
    recommender.batch, recommender.history = batch, history
    recommender.context = context or {}
    return recommender


def test_the_inputs_of_a_loss_in_order() -> None:
    ids, numbers = torch.int64, torch.float32
    window = {"history": BatchInput(ids, 4), "present": BatchInput(numbers, 4)}
    assert batch_inputs(Popularity()) == {"item": BatchInput(ids), "label": BatchInput(numbers)}
    full = batch_inputs(declared(BatchKind.PAIRWISE, 4, {"hour": 24, "day": 7}))
    assert list(full) == ["positive", "negative", "context", "history", "present"]
    assert full.items() >= {"context": BatchInput(ids, 2), **window}.items()
    sequence = batch_inputs(declared(BatchKind.SEQUENCE, 4))
    assert list(sequence) == ["history", "positive", "negative", "present"]
    assert {what.width for what in sequence.values()} == {4}


def test_a_score_takes_the_situation_only() -> None:
    assert score_inputs(Popularity()) == {}
    situation = score_inputs(declared(BatchKind.PAIRWISE, 4, {"hour": 24}))
    assert list(situation) == ["context", "history", "present"]
    assert list(score_inputs(declared(BatchKind.SEQUENCE, 4))) == ["history", "present"]


@pytest.mark.parametrize(
    ("recommender", "message"),
    [
        (declared(BatchKind.SEQUENCE), "history is 0; sequence batches need a window"),
        (declared(BatchKind.SEQUENCE, 3, {"hour": 24}), "context has fields"),
        (declared(BatchKind.POINTWISE, -1), "history is -1"),
        (declared(BatchKind.POINTWISE, 0, {"hour of day": 24}), "'hour of day'; expected letters"),
        (declared(BatchKind.POINTWISE, 0, {"hour": 0}), "'hour' has 0 values"),
    ],
)
def test_a_declaration_that_breaks_a_rule_is_named(recommender: Any, message: str) -> None:
    with pytest.raises(RecommenderError, match=message):
        batch_inputs(recommender)


def test_examples_are_in_range_and_windows_are_padded_on_the_left() -> None:
    batch = example_batch(declared(BatchKind.POINTWISE, 3, {"hour": 24, "day": 2}), 50, 6)
    assert batch["item"].max() < 6
    assert batch["history"].shape == (50, 3)
    assert batch["context"].amax(0).tolist() <= [23, 1]
    present = batch["present"]
    assert set(present.sum(1).tolist()) == {0.0, 1.0, 2.0, 3.0}
    torch.testing.assert_close(present, present.sort(dim=1).values)
