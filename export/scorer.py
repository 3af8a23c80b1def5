"""The scorer: the score of items for the user of a device, as an ONNX graph.

Inputs: each parameter under its own name, a table (roles ``rows`` and ``frozen-rows``) as the rows
at hand float32 [R, width], others float32 in full shape; then those of ``context`` int64 [fields],
``history`` int64 [L] and ``present`` float32 [L] that the recommender declares. Positions of the
history count in the rows at hand. Output: ``score`` float32 [R], higher is better.
"""

from collections.abc import Mapping

from onnx import ModelProto
from torch import Tensor, nn
from torch.func import functional_call

from export.onnx_graph import convert, to_model
from export.origin import places_of
from export.recommender import (
    Recommender,
    example_batch,
    local_copy,
    parameter_specs,
    parameter_values,
    score_inputs,
)
from export.trial import try_score

__all__ = ["score_module", "scorer_program"]

_EXAMPLE_ROWS = 11


def scorer_program(recommender: Recommender) -> ModelProto:
    """Compile the score of a recommender; the values of its parameters play no part.

    Raises:
        RecommenderError: the recommender breaks a rule, or cannot be exported.
    """
    scorer, examples = score_module(recommender, _EXAMPLE_ROWS)
    rows = {spec.name: {0: "R"} for spec in parameter_specs(recommender) if spec.is_table}
    return to_model(convert(scorer, examples, rows, ["score"], scorer.places))


def score_module(recommender: Recommender, rows: int) -> tuple["_Scorer", dict[str, Tensor]]:
    """The score as a module of tensors by position, and examples of its inputs for ``rows`` rows.

    Raises:
        RecommenderError: the recommender or its score breaks a rule.
    """
    parameter_specs(recommender)
    local = local_copy(recommender, rows)
    batch = example_batch(recommender, 1, rows)
    situation = {name: batch[name][0] for name in score_inputs(recommender)}
    places = places_of(try_score(local, situation, rows))
    values = parameter_values(local)
    # What is put in their place is all that counts, and no program shall carry them.
    for name, tensor in (*local.named_parameters(), *local.named_buffers()):
        if name in values:
            tensor.data = tensor.new_empty(0)
    return _Scorer(local, tuple(values), tuple(situation), places), {**values, **situation}


class _Scorer(nn.Module):
    """The score as a function of the parameters, which `functional_call` puts in place."""

    def __init__(
        self,
        recommender: Recommender,
        parameters: tuple[str, ...],
        situation: tuple[str, ...],
        places: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._names, self._situation, self.places = parameters, situation, places
        self._scored = _Score(recommender)

    def forward(self, *values: Tensor) -> Tensor:
        given = dict(zip((*self._names, *self._situation), values, strict=True))
        parameters = {f"recommender.{name}": given.pop(name) for name in self._names}
        score: Tensor = functional_call(self._scored, parameters, (), given)
        return score


class _Score(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, **situation: Tensor) -> Tensor:
        return self.recommender.score(**situation)
