from typing import Any

import pytest
import torch

from export.errors import RecommenderError
from export.recommender import parameter_specs
from export.recommenders.mf import MatrixFactorisation
from wire.manifest import BatchKind, ParameterSpec, Role


def test_parameters_and_roles() -> None:
    assert parameter_specs(MatrixFactorisation(items=7, dimension=3)) == (
        ParameterSpec("user_vector", Role.PRIVATE, (3,)),
        ParameterSpec("item_rows", Role.ROWS, (7, 3)),
    )
    assert parameter_specs(MatrixFactorisation(items=7, dimension=3, bias=True))[1].shape == (7, 4)
    assert MatrixFactorisation(items=7).batch is BatchKind.POINTWISE
    assert MatrixFactorisation(items=7, loss="bpr").batch is BatchKind.PAIRWISE


def test_the_start_is_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = MatrixFactorisation(items=500, seed=3, item_spread=0.1)
    torch.manual_seed(2)
    again = MatrixFactorisation(items=500, seed=3, item_spread=0.1, bias=True)
    assert torch.equal(first.item_rows, again.item_rows[:, :-1])
    assert not again.item_rows[:, -1].any()
    assert again.user_vector.std().item() == pytest.approx(0.1, rel=0.3)
    assert torch.equal(first.user_vector, again.user_vector)
    assert not torch.equal(first.item_rows, MatrixFactorisation(items=500, seed=4).item_rows)
    assert first.item_rows.std().item() == pytest.approx(0.1, rel=0.05)


def test_score_is_product_plus_bias() -> None:
    model = MatrixFactorisation(items=2, dimension=2, bias=True)
    with torch.no_grad():
        model.user_vector.copy_(torch.tensor([1.0, 2.0]))
        model.item_rows.copy_(torch.tensor([[3.0, 4.0, 0.5], [0.0, -1.0, 0.25]]))
    assert model.score().tolist() == [11.5, -1.75]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": 0}, "items is 0; expected at least 1"),
        ({"items": 3, "dimension": 0}, "dimension is 0"),
        ({"items": 3, "item_spread": 0.0}, "item_spread is 0.0"),
        ({"items": 3, "user_spread": float("nan")}, "user_spread is nan"),
        ({"items": 3, "l2": -0.1}, "l2 is -0.1"),
        ({"items": 3, "l2": float("inf")}, "l2 is inf"),
        ({"items": 3, "seed": 2**80}, "seed"),
        ({"items": 1 << 40}, "items is 1099511627776 and a row has 32 numbers; expected at most"),
        ({"items": 3, "seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RecommenderError, match=message):
        MatrixFactorisation(**wrong)
