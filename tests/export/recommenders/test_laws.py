"""What holds for every recommender that ships."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from export.errors import RecommenderError
from export.losses import bce, softplus
from export.recommender import (
    Recommender,
    batch_inputs,
    parameter_specs,
    parameter_values,
    score_inputs,
)
from export.recommenders import RECOMMENDERS
from tests.export.recommenders.cases import CASES, CONTEXT, FEATURES, ITEMS, batch, make
from wire.manifest import BatchKind, Role

cases = pytest.mark.parametrize("case", CASES)
with_history = pytest.mark.parametrize(
    "case", [case for case, (kind, _) in CASES.items() if kind in ("two_tower", "sasrec")]
)


def gradients(recommender: Recommender, losses: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*recommender.named_parameters(), strict=True)
    found = torch.autograd.grad(losses.sum(), parameters)
    return dict(zip(names, found, strict=True))


def scores(recommender: Recommender, samples: dict[str, Tensor], at: int) -> Tensor:
    """Of all items, in the situation of one sample."""
    return recommender.score(**{name: samples[name][at] for name in score_inputs(recommender)})


def penalty(recommender: Any) -> Tensor:
    """l2 / 2 times the squares of what a model penalises: the user's own, or linear weights."""
    penalised = ("user_", "context_weights", "feature_weights")
    dense = ("user_layer", "user_bias", "user_head")
    squares = [
        parameter.square().sum()
        for name, parameter in recommender.named_parameters()
        if name.startswith(penalised) and name not in dense
    ]
    total: Tensor = torch.stack([torch.zeros(()), *squares]).sum() * recommender.l2 / 2
    return total


def scramble(samples: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same samples with other ids where there is padding."""
    present = samples["present"].bool()
    return {
        name: torch.where(present, ids, (ids + 5) % ITEMS)
        if ids.shape == present.shape and name != "present"
        else ids
        for name, ids in samples.items()
    }


@cases
def test_a_sample_gets_a_loss_and_an_item_a_score(case: str) -> None:
    recommender = make(case)
    samples = batch(recommender, 6)
    losses, score = recommender.loss(*samples.values()), scores(recommender, samples, 0)
    assert (losses.dtype, losses.shape) == (torch.float32, (6,))
    assert (score.dtype, score.shape) == (torch.float32, (ITEMS,))
    assert {spec.name for spec in parameter_specs(recommender)} == set(recommender.roles())


@cases
def test_samples_do_not_mix(case: str) -> None:
    recommender = make(case)
    samples = batch(recommender, 6)
    together = recommender.loss(*samples.values())
    for at in range(6):
        alone = recommender.loss(*(values[at : at + 1] for values in samples.values()))
        torch.testing.assert_close(alone[0], together[at])


@cases
def test_only_rows_in_the_batch_get_a_gradient(case: str) -> None:
    recommender, half = make(case), ITEMS // 2
    samples = {
        name: values % half if values.dtype is torch.int64 and name != "context" else values
        for name, values in batch(recommender, 6).items()
    }
    found = gradients(recommender, recommender.loss(*samples.values()))
    for name, role in recommender.roles().items():
        if role is Role.ROWS:
            assert found[name][:half].any()
            assert not found[name][half:].any()


@cases
def test_gradients_are_those_of_finite_differences(case: str) -> None:
    recommender = make(case).double()
    samples = {
        name: values.double() if values.is_floating_point() else values
        for name, values in batch(recommender, 4).items()
    }
    names = [name for name, _ in recommender.named_parameters()]

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recommender = recommender

        def forward(self) -> Tensor:
            return recommender.loss(*samples.values())

    def losses(*parameters: Tensor) -> Any:
        named = {
            f"recommender.{name}": value for name, value in zip(names, parameters, strict=True)
        }
        return functional_call(Loss(), named, ())

    start = tuple(p.detach().clone().requires_grad_() for p in recommender.parameters())
    assert torch.autograd.gradcheck(losses, start, fast_mode=True)


@pytest.mark.parametrize("case", [case for case in CASES if "sasrec" not in case])
def test_the_score_is_what_the_loss_is_about(case: str) -> None:
    recommender = make(case)
    samples = batch(recommender, 6)
    losses = recommender.loss(*samples.values())
    for at in range(6):
        score = scores(recommender, samples, at)
        if recommender.batch is BatchKind.PAIRWISE:
            expected = softplus(score[samples["negative"][at]] - score[samples["positive"][at]])
        elif CASES[case][1].get("loss") == "squared":
            expected = (score[samples["item"][at]] - samples["label"][at]).square() / 8
        else:
            expected = bce(score[samples["item"][at]], samples["label"][at])
        # What is left is the penalty, which has nothing to do with the items.
        torch.testing.assert_close(losses[at] - expected, penalty(recommender))


@with_history
def test_padding_changes_nothing(case: str) -> None:
    recommender = make(case)
    samples = batch(recommender, 6)
    others = scramble(samples)
    assert not torch.equal(samples["history"], others["history"])
    losses, same = (recommender.loss(*each.values()) for each in (samples, others))
    assert torch.equal(losses, same)
    found, alike = (gradients(recommender, each) for each in (losses, same))
    for name, gradient in found.items():
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient, alike[name])
    for at in range(6):
        assert torch.equal(scores(recommender, samples, at), scores(recommender, others, at))


@cases
def test_the_start_is_a_function_of_the_seed_alone(case: str) -> None:
    kind, options = CASES[case]
    torch.manual_seed(1)
    first = RECOMMENDERS[kind](items=ITEMS, **options, seed=3)
    torch.manual_seed(2)
    again, other = (RECOMMENDERS[kind](items=ITEMS, **options, seed=seed) for seed in (3, 4))
    for name, value in parameter_values(first).items():
        assert torch.equal(value, parameter_values(again)[name])
    differs = [
        name
        for name, value in parameter_values(first).items()
        if not torch.equal(value, parameter_values(other)[name])
    ]
    assert bool(differs) is (kind != "linear")


def learnable(recommender: Recommender, random: torch.Generator) -> dict[str, Tensor]:
    """64 samples in which even items are preferred to odd ones, and are what histories hold."""
    samples: dict[str, Tensor] = {}
    for name, what in batch_inputs(recommender).items():
        shape = [int(n) for n in what.shape(64)]
        ids = torch.randint(ITEMS, shape, generator=random)
        if name == "label":
            ids = 1 - samples["item"] % 2
        elif name in ("positive", "history"):
            ids -= ids % 2
        elif name == "negative":
            ids -= ids % 2 - 1
        elif name == "context":
            ids %= torch.tensor(list(recommender.context.values()))
        elif name == "present":
            ids = torch.ones(shape)
        samples[name] = ids.to(what.dtype)
    return samples


@cases
def test_plain_sgd_with_the_defaults_of_a_task_learns(case: str) -> None:
    kind, options = CASES[case]
    recommender = RECOMMENDERS[kind](items=ITEMS, **options)
    # Learnable from content alone, and with rows of a length of about 1.
    content = torch.tensor([[0.6, 0.0, 0.8], [-0.6, 0.0, 0.8]]).repeat(ITEMS // 2, 1)
    for name in {"features"} & parameter_values(recommender).keys():
        recommender.get_buffer(name).copy_(content)
    random = torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(recommender.parameters(), lr=0.04)
    losses = []
    for _ in range(60):
        loss = recommender.loss(*learnable(recommender, random).values())
        optimizer.zero_grad()
        torch.autograd.backward(loss.sum())
        optimizer.step()
        losses.append(loss.mean().item())
    assert max(losses) < 2 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"items": 0}, "items is 0; expected at least 1"),
    ({"items": 1 << 40}, "items is 1099511627776 and a row has"),
    ({"dimension": 0}, "dimension is 0; expected at least 1"),
    ({"loss": "hinge"}, "loss is 'hinge'; expected one of b"),
    ({"history": 0}, "history is 0; expected at least 1"),
    ({"l2": -0.1}, "l2 is -0.1; expected at least 0"),
    ({"l2": float("nan")}, "l2 is nan"),
    ({"seed": -1}, "seed is -1"),
    ({"context": {"hour": 0}}, r"context\['hour'\] is 0; expected at least 1"),
    ({"features": np.zeros((3, 2))}, r"features have the shape \[3, 2\]; expected \[12, F\]"),
    ({"features": np.zeros(12)}, r"features have the shape \[12\]"),
    ({"features": np.full((12, 1), np.inf)}, "features hold numbers that are not finite"),
]


def arguments(kind: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(RECOMMENDERS[kind]).parameters


@pytest.mark.parametrize("kind", RECOMMENDERS)
def test_options_have_one_word_for_one_thing(kind: str) -> None:
    taken = arguments(kind)
    assert [name for name, a in taken.items() if a.default is a.empty] == ["items"]
    assert taken["seed"].default == 0
    assert all(a.kind is a.KEYWORD_ONLY for a in taken.values())
    assert RECOMMENDERS[kind].kind == kind


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (kind, wrong, message)
        for kind in RECOMMENDERS
        for wrong, message in WRONG
        if wrong.keys() <= arguments(kind).keys()
    ],
)
def test_arguments_out_of_range_are_named(kind: str, wrong: dict[str, Any], message: str) -> None:
    known: dict[str, Any] = {"items": ITEMS, "features": FEATURES, "context": CONTEXT}
    given = {name: value for name, value in known.items() if name in arguments(kind)}
    with pytest.raises(RecommenderError, match=message):
        RECOMMENDERS[kind](**{**given, **wrong})
