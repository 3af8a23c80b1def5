"""One step is that of torch.optim, whichever way its gradient comes."""

import pytest
import torch
from torch import Tensor

from export.recommender import batch_inputs
from export.step import trace_step
from tests.export.probe import Probe, good
from tests.export.small_recommenders import SMALL
from wire.manifest import Optimizer, Role

RATE = 0.1


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_names_and_tensors_agree(optimizer: Optimizer) -> None:
    recommender = SMALL["linear"]()
    step = trace_step(recommender, optimizer, proximal=True)
    examples = step.examples(7, 5)
    assert tuple(examples) == step.inputs
    results = dict(zip(step.outputs, step(*examples.values()), strict=True))
    for name in (*step.trained, *step.state):
        assert results[f"{name}.new"].shape == examples[name].shape
    assert results["losses"].shape == (5,)
    assert step.batch == batch_inputs(recommender)
    assert step.frozen == ("features",)
    assert examples["features"].shape == (7, 3)
    assert examples["item_rows.start"].shape == (7, 1)
    shapes = step.shapes("R", "B")
    assert shapes["context"] == ("B", 2)
    assert shapes["rate"] == ("B",)
    assert shapes["features"] == ("R", 3)
    assert shapes["pull"] == ()


def test_plain_sgd_adds_rows_into_the_table_itself() -> None:
    step = trace_step(SMALL["mf"]())
    assert not step.state
    assert step.inputs == ("user_vector", "item_rows", "item", "label", "rate")
    values = step.examples(3, 2)
    values["item_rows"] = torch.ones(3, 5)
    values["user_vector"] = torch.ones(4)
    values["item"] = torch.tensor([1, 1])
    values["rate"] = torch.tensor([-RATE, 0.0])
    _, rows, losses = step(*values.values())
    # Logit 5 and label 0: the slope is sigmoid(5), and the bias column takes it as it is.
    assert rows[1].tolist() == pytest.approx([1 - RATE * torch.tensor(5.0).sigmoid().item()] * 5)
    assert rows[[0, 2]].tolist() == [[1.0] * 5] * 2
    assert losses[0] == losses[1]


def test_one_tensor_for_two_inputs_of_a_loss_stays_two_inputs() -> None:
    step = trace_step(Probe(good))
    inputs = [node.name for node in step.gradients.graph.find_nodes(op="placeholder")]
    assert len(inputs) == len(step.trained) + 3
    assert len(set(step.trained)) == 3


def test_a_parameter_that_only_the_score_reads_may_be_frozen() -> None:
    class WithPrior(Probe):
        prior: Tensor

        def __init__(self) -> None:
            super().__init__(good)
            self.register_buffer("prior", torch.zeros(self.items, 1))

        def roles(self) -> dict[str, Role]:
            return {**super().roles(), "prior": Role.FROZEN_ROWS}

    assert trace_step(WithPrior()).frozen == ("prior",)
