from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import RecommenderError
from export.onnx_graph import to_bytes
from export.recommenders.mf import MatrixFactorisation
from export.scorer import scorer_program

Run = Callable[[ModelProto, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("candidates", [1, 2, 100])
def test_scores_are_those_of_the_module(run: Run, bias: bool, candidates: int) -> None:
    model = MatrixFactorisation(items=candidates, dimension=5, bias=bias)
    inputs = {name: p.detach().numpy() for name, p in model.named_parameters()}
    scores = run(scorer_program(model), inputs)["score"]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.score().detach().numpy(), rtol=1e-5, atol=1e-7)


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
