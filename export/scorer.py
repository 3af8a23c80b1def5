"""The scorer: the score of candidate items for the user of a device, as an ONNX graph.

Inputs: each parameter under its own name, a ``rows`` parameter as the rows of C candidates float32
[C, width], others float32 in full shape. Output: ``score`` float32 [C], higher is better.
"""

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.func import functional_call

from export.errors import RecommenderError
from export.onnx_graph import convert, to_model
from export.recommender import Recommender, local_copy, parameter_specs
from wire.manifest import Role

__all__ = ["scorer_program"]

_EXAMPLE_ROWS = 11


def scorer_program(recommender: Recommender) -> ModelProto:
    """Compile the score of a recommender; the values of its parameters play no part.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
    """
    specs = parameter_specs(recommender)
    local = local_copy(recommender, _EXAMPLE_ROWS)
    parameters = {spec.name: local.get_parameter(spec.name).detach() for spec in specs}
    score = local.score()
    if score.shape != (_EXAMPLE_ROWS,) or score.dtype is not torch.float32:
        raise RecommenderError(
            f"score() returned {score.dtype} {list(score.shape)} for {_EXAMPLE_ROWS} rows; "
            f"expected torch.float32 [{_EXAMPLE_ROWS}]"
        )
    rows = {spec.name: "C" for spec in specs if spec.role is Role.ROWS}
    return to_model(convert(_Scorer(local, tuple(parameters)), parameters, rows, ["score"]))


class _Scorer(nn.Module):
    """The score as a function of the parameters, which `functional_call` puts in place."""

    def __init__(self, recommender: Recommender, names: tuple[str, ...]) -> None:
        super().__init__()
        self._names = names
        self._scored = _Score(recommender)

    def forward(self, *values: Tensor) -> Tensor:
        parameters = {
            f"recommender.{name}": value for name, value in zip(self._names, values, strict=True)
        }
        score: Tensor = functional_call(self._scored, parameters, ())
        return score


class _Score(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self) -> Tensor:
        return self.recommender.score()
