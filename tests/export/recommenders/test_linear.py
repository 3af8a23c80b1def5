import math

import pytest
import torch

from export.errors import RecommenderError
from export.recommender import parameter_specs
from export.recommenders.linear import LinearModel
from tests.export.recommenders.cases import CONTEXT, FEATURES, ITEMS, batch, make
from wire.manifest import ParameterSpec, Role


def test_parameters_and_roles() -> None:
    assert parameter_specs(LinearModel(items=ITEMS)) == (
        ParameterSpec("intercept", Role.PRIVATE, (1,)),
        ParameterSpec("item_rows", Role.ROWS, (ITEMS, 1)),
    )
    full = LinearModel(items=ITEMS, context=CONTEXT, features=FEATURES, bias=False)
    assert parameter_specs(full) == (
        ParameterSpec("intercept", Role.PRIVATE, (1,)),
        ParameterSpec("context_weights", Role.DENSE, (7,)),
        ParameterSpec("feature_weights", Role.DENSE, (3, 1)),
        ParameterSpec("features", Role.FROZEN_ROWS, (ITEMS, 3)),
    )


def test_loss_and_score_are_those_of_the_formula() -> None:
    model = make("linear squared")
    samples = batch(model, 5)
    values = {name: p.detach().double() for name, p in model.named_parameters()}
    weights = [*values["context_weights"], *values["feature_weights"].flatten()]
    losses = model.loss(*samples.values())
    for at in range(5):
        item, (hour, weather) = samples["item"][at], samples["context"][at]
        prediction = float(values["intercept"] + values["item_rows"][item, 0])
        prediction += sum(
            float(x * w)
            for x, w in zip(FEATURES[item], values["feature_weights"][:, 0], strict=True)
        )
        facts = values["context_weights"][[int(hour), CONTEXT["hour"] + int(weather)]]
        prediction += float(facts[0] + facts[1]) / 2
        penalty = 0.1 / 2 * sum(float(weight) ** 2 for weight in weights)
        error = prediction - float(samples["label"][at])
        assert losses[at].item() == pytest.approx(error**2 / 8 + penalty, rel=1e-5)
        score = model.score(samples["context"][at])
        assert score[item].item() == pytest.approx(prediction, rel=1e-5)


def test_squared_error_starts_as_steep_as_cross_entropy() -> None:
    """So that one learning rate serves both; at 0 both also have the same second derivative."""
    slopes = []
    for loss in ("bce", "squared"):
        model = LinearModel(items=2, loss="bce" if loss == "bce" else "squared")
        value = model.loss(torch.tensor([0, 0]), torch.tensor([0.0, 1.0])).sum()
        (first,) = torch.autograd.grad(value, model.intercept, create_graph=True)
        (second,) = torch.autograd.grad(first, model.intercept)
        slopes.append(second.item())
    assert slopes == pytest.approx([0.5, 0.5])


def test_logistic_regression_of_counts_is_their_log_odds() -> None:
    """Three of four labels are 1: the intercept goes to log 3."""
    model = LinearModel(items=1, features=torch.zeros(1, 1), bias=False)
    item, label = torch.zeros(4, dtype=torch.int64), torch.tensor([1.0, 1.0, 1.0, 0.0])
    for _ in range(200):
        (slope,) = torch.autograd.grad(model.loss(item, label).sum(), model.intercept)
        with torch.no_grad():
            model.intercept.sub_(0.5 * slope)
    assert model.score().item() == pytest.approx(math.log(3), rel=1e-4)


def test_the_stated_bound_on_the_learning_rate_is_sharp() -> None:
    """All samples share their facts, which is the worst case."""
    content = torch.tensor([[3.0, 4.0]])
    samples = (torch.zeros(16, dtype=torch.int64), torch.ones(16), torch.zeros(16, 2).long())
    bound = 8 / (16 * (2 + 25 + 1 / 2))
    distances = []
    for rate in (0.95 * bound, 1.05 * bound):
        model = LinearModel(items=1, loss="squared", context=CONTEXT, features=content)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(100):
            loss = model.loss(*samples).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        distances.append(loss.item())
    assert distances[0] < 1e-3
    assert distances[1] > 1e3


def test_the_features_that_were_given_are_copied() -> None:
    content = FEATURES.clone()
    model = LinearModel(items=ITEMS, features=content)
    content.zero_()
    assert model.features is not None
    assert torch.equal(model.features, FEATURES)


def test_items_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(RecommenderError, match="all items are equal"):
        LinearModel(items=3, bias=False)
