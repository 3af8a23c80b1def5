"""What has no standard ONNX form is refused with the line that asked for it."""

import pytest
import torch
from torch import Tensor

from export.errors import RecommenderError
from export.losses import bce
from export.scorer import scorer_program
from export.training_graph import training_program
from tests.export.probe import Loss, Probe, good, logit, place


def bessel(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    score = torch.special.i1(logit(probe, item))  # here
    return bce(score, label)


def running(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    rows = torch.cummax(probe.rows[item], dim=1).values  # here
    return bce((rows + probe.padded.weight[item]) @ probe.user, label)


@pytest.mark.parametrize(
    ("loss", "operator"), [(bessel, "prims.bessel_i1"), (running, "aten.cummax")]
)
def test_an_operator_without_a_standard_form_is_named(loss: Loss, operator: str) -> None:
    with pytest.raises(RecommenderError) as caught:
        training_program(Probe(loss))
    message = str(caught.value)
    assert message.startswith(f"operator {operator}{place(loss)}")
    assert message.endswith("has no standard ONNX form; write it with other operators")


def test_it_is_named_in_a_score_too() -> None:
    class Exotic(Probe):
        def score(self) -> Tensor:
            score: Tensor = torch.special.i1(super().score())
            return score

    with pytest.raises(RecommenderError, match=r"bessel_i1 at .*test_onnx_graph.py:\d+: score"):
        scorer_program(Exotic(good))
