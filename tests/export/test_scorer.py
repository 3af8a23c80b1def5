from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from export.errors import RecommenderError
from export.onnx_graph import to_bytes
from export.recommender import local_copy, parameter_values
from export.recommenders.mf import MatrixFactorisation
from export.scorer import scorer_program
from tests.export.local_updates import draw_situation
from tests.export.small_recommenders import SMALL

Run = Callable[[ModelProto, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


@pytest.mark.parametrize("model", SMALL)
def test_scores_are_those_of_the_module(run: Run, model: str) -> None:
    program = scorer_program(SMALL[model]())
    for rows in (1, 2, 30):
        local = local_copy(SMALL[model](), rows)
        values = parameter_values(local)
        for value in values.values():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(rows)))
        situation = draw_situation(local, rows=rows)
        given = {**{name: value.numpy() for name, value in values.items()}, **situation}
        scores = run(program, given)["score"]
        assert scores.dtype == np.float32
        expected = local.score(**{name: torch.tensor(value) for name, value in situation.items()})
        np.testing.assert_allclose(scores, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_shapes_that_a_device_sees() -> None:
    graph = scorer_program(SMALL["linear"]()).graph
    assert {value.name: dims(value) for value in graph.input} == {
        "intercept": [1],
        "item_rows": ["R", 1],
        "context_weights": [10],
        "feature_weights": [3, 1],
        "features": ["R", 3],
        "context": [2],
    }
    assert [(value.name, dims(value)) for value in graph.output] == [("score", ["R"])]


def dims(value: ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_the_scorer_holds_no_parameter() -> None:
    first, second = MatrixFactorisation(items=9, seed=1), MatrixFactorisation(items=4_000, seed=2)
    program = scorer_program(first)
    assert to_bytes(program) == to_bytes(scorer_program(second))
    assert program.ir_version == 10
    assert {node.domain for node in program.graph.node} == {""}


def test_a_score_of_the_wrong_shape_is_refused() -> None:
    class Total(MatrixFactorisation):
        def score(self) -> torch.Tensor:
            return super().score().sum()

    with pytest.raises(RecommenderError, match=r"score\(\) returned torch.float32 \[\]"):
        scorer_program(Total(items=3))
