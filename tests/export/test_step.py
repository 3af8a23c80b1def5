"""Losses that cannot be compiled are refused with the reason."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from export.errors import RecommenderError
from export.losses import bce
from export.recommender import Recommender
from export.step import trace_step
from export.training_graph import training_program
from wire.manifest import BatchKind, Role

Loss = Callable[["Probe", Tensor, Tensor], Tensor]


class Probe(Recommender):
    """A recommender whose loss is given by the test."""

    kind, batch = "probe", BatchKind.POINTWISE
    seen: Tensor

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.items = 4
        self.rows = nn.Parameter(torch.ones(4, 2))
        self.user = nn.Parameter(torch.ones(2))
        self.padded = nn.Embedding(4, 2, padding_idx=0)
        self.register_buffer("seen", torch.zeros(()))
        self._loss = loss

    def roles(self) -> Mapping[str, Role]:
        return {"rows": Role.ROWS, "user": Role.PRIVATE, "padded.weight": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return self._loss(self, item, label)

    def score(self) -> Tensor:
        return self.rows @ self.user


def logit(probe: Probe, item: Tensor) -> Tensor:
    return (probe.rows[item] + probe.padded.weight[item]) @ probe.user


def scalar(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce(logit(probe, item), label).sum()


def doubles(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce(logit(probe, item), label).double()


def constant(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return label


def without_user(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce((probe.rows[item] + probe.padded.weight[item]).sum(1), label)


def averages_table(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce(logit(probe, item), label) + probe.rows.square().mean()


def counts_rows(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce(logit(probe, item) / probe.rows.shape[0], label)


def padding(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce((probe.rows[item] + probe.padded(item)) @ probe.user, label)


def branches(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    sign = 1 if float(label.detach().sum()) > 2 else -1
    return bce(sign * logit(probe, item), label)


def counts_calls(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    probe.seen.add_(1)
    return bce(logit(probe, item), label)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (scalar, r"float32 \[\] for 13 samples; expected torch.float32 \[13\]"),
        (doubles, "torch.float64"),
        (constant, "depends on no parameter"),
        (without_user, "'user' takes no part in the loss"),
        (averages_table, "depends on the number of rows"),
        (counts_rows, "depends on the number of rows"),
        (padding, "padding_idx"),
        (branches, "cannot be traced"),
        (counts_calls, "seen in place"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_refused(loss: Loss, message: str) -> None:
    with pytest.raises(RecommenderError, match=message):
        trace_step(Probe(loss))


def test_an_error_is_one_line() -> None:
    with pytest.raises(RecommenderError) as caught:
        trace_step(Probe(branches))
    assert "\n" not in str(caught.value)


def test_what_has_no_standard_operator_is_refused() -> None:
    def exotic(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
        return bce(torch.special.bessel_j0(label) + logit(probe, item), label)

    with pytest.raises(RecommenderError, match=r"conversion to ONNX failed: .*bessel_j0"):
        training_program(Probe(exotic))


def test_one_tensor_for_two_inputs_of_a_loss_stays_two_inputs() -> None:
    step = trace_step(Probe(lambda probe, item, label: bce(logit(probe, item), label)))
    inputs = [node.name for node in step.graph.graph.find_nodes(op="placeholder")]
    assert len(inputs) == len(step.parameters) + 3
    assert len(set(step.parameters)) == 3
