from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce
from export.recommender import Recommender, local_copy, parameter_specs
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
        (
            WithDense(3, h=nn.Parameter(torch.ones(2), requires_grad=False)),
            "'h' does not require a gradient",
        ),
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
    for recommender in (tied, view):
        with pytest.raises(RecommenderError, match=r"'bias_rows' and '\w+' share storage|share"):
            parameter_specs(recommender)


def test_a_local_copy_has_small_tables_and_leaves_the_original_alone() -> None:
    original = WithDense(1_000, head=nn.Parameter(torch.ones(2)))
    local = local_copy(original, 4)
    assert local.get_parameter("bias_rows").shape == (4, 1)
    assert local.score().shape == (4,)
    with torch.no_grad():
        local.get_parameter("head").zero_()
    assert original.get_parameter("bias_rows").shape == (1_000, 1)
    assert original.get_parameter("head").tolist() == [1.0, 1.0]
