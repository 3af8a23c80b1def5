"""Losses that cannot be compiled are refused with the line that is to blame, and what to do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from export.errors import RecommenderError
from export.gradients import trace_gradients
from export.losses import bce
from tests.export.probe import Loss, Probe, good, logit, place


def changes_buffer(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    probe.seen.add_(1)  # here
    return good(probe, item, label)


def changes_statistics(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    rows = probe.normalise(probe.rows[item])  # here
    return bce(rows @ probe.user, label)


def changes_parameter(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    probe.user.add_(1)  # here
    return good(probe, item, label)


def changes_data(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    probe.user.data.mul_(0.5)  # here
    return good(probe, item, label)


def changes_input(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    label[0] = 1.0  # here
    return good(probe, item, label)


def branches(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    if label.sum() > 2:  # here
        return good(probe, item, label)
    return bce(-logit(probe, item), label)


def draws(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    rows = probe.drop(probe.rows[item])  # here
    return bce(rows @ probe.user, label)


def reads_constant(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    group = probe.groups[item]  # here
    return bce(logit(probe, item) + group, label)


def misspells(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    user: Any = probe.usr  # here
    return bce(probe.rows[item] @ user, label)


def averages_table(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    penalty = probe.rows.square().mean()  # here
    return good(probe, item, label) + penalty


def counts_rows(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    share = logit(probe, item) / probe.rows.shape[0]  # here
    return bce(share, label)


def pads(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    rows = probe.padded(item)  # here
    return bce((probe.rows[item] + rows) @ probe.user, label)


def leaves_pytorch(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    numbers = torch.from_numpy(label.numpy())  # here
    return bce(logit(probe, item), numbers)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (changes_buffer, "changes 'seen' in place{}"),
        (changes_statistics, "changes 'normalise.num_batches_tracked' in place{}"),
        (changes_parameter, "changes a parameter in place{}"),
        (changes_data, "changes 'user' in place{}"),
        (changes_input, "changes 'label' in place{}"),
        (branches, "decides by the value of a tensor{}"),
        (draws, "draws random numbers{}"),
        (reads_constant, "reads a constant by item{}"),
        (misspells, "loss() fails{}"),
        (averages_table, "depends on the number of rows{}"),
        (counts_rows, "depends on the number of rows{}"),
        (pads, "the embedding{}"),
        (leaves_pytorch, "loss() cannot be traced{}"),
    ],
)
def test_a_refusal_names_the_line(loss: Loss, message: str) -> None:
    with pytest.raises(RecommenderError) as caught:
        trace_gradients(Probe(loss))
    assert message.format(place(loss)) in str(caught.value)
    assert "\n" not in str(caught.value)


def scalar(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return good(probe, item, label).sum()


def doubles(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return good(probe, item, label).double()


def nothing(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return None  # type: ignore[return-value]


def constant(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return label


def without_user(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return bce((probe.rows[item] + probe.padded.weight[item]).sum(1), label)


def subtracts_mean(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    score = logit(probe, item)
    return bce(score - score.mean(), label)


def sums_some(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    return good(probe, item, label) + logit(probe, item)[label > 0].sum()


def loops_over_samples(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
    losses = [good(probe, item[at : at + 1], label[at : at + 1]) for at in range(len(item))]
    return torch.cat(losses)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (scalar, r"float32 \[\] for 13 samples; expected torch.float32 \[13\]"),
        (doubles, "torch.float64"),
        (nothing, "returned None; expected a tensor"),
        (constant, "depends on no parameter"),
        (without_user, "'user' takes no part in the loss"),
        (subtracts_mean, "depends on the other samples"),
        (sums_some, "depends on the other samples"),
        (loops_over_samples, "one number of samples only"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_refused(loss: Loss, message: str) -> None:
    with pytest.raises(RecommenderError, match=message):
        trace_gradients(Probe(loss))


def test_what_is_changed_in_place_may_be_new() -> None:
    def scaled(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
        score = logit(probe, item) * 1.5
        score.mul_(2.0)
        return bce(score, label)

    graph, _ = trace_gradients(Probe(scaled))
    assert len(graph.graph.find_nodes(op="placeholder")) == 6


def test_an_embedding_that_only_looks_up_is_good() -> None:
    def embedded(probe: Probe, item: Tensor, label: Tensor) -> Tensor:
        rows = torch.nn.functional.embedding(item, probe.padded.weight)
        return bce((probe.rows[item] + rows) @ probe.user, label)

    trace_gradients(Probe(embedded))


def test_the_recommender_is_left_as_it_is() -> None:
    probe = Probe(good)
    trace_gradients(probe)
    assert probe.user.tolist() == [1.0, 1.0]
    assert probe.user.grad is None
    assert probe.rows.shape == (8_000, 2)
