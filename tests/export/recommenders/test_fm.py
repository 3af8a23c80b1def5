from itertools import combinations

import pytest
import torch

from export.recommender import parameter_specs
from export.recommenders.fm import FactorisationMachine
from tests.export.recommenders.cases import CONTEXT, FEATURES, ITEMS, batch, make
from wire.manifest import ParameterSpec, Role


def test_parameters_and_roles() -> None:
    assert parameter_specs(FactorisationMachine(items=ITEMS, dimension=3)) == (
        ParameterSpec("user_vector", Role.PRIVATE, (4,)),
        ParameterSpec("item_rows", Role.ROWS, (ITEMS, 4)),
    )
    full = FactorisationMachine(items=ITEMS, dimension=3, context=CONTEXT, features=FEATURES)
    assert parameter_specs(full)[2:] == (
        ParameterSpec("context_table", Role.DENSE, (7, 4)),
        ParameterSpec("feature_table", Role.DENSE, (3, 4)),
        ParameterSpec("features", Role.FROZEN_ROWS, (ITEMS, 3)),
    )
    assert not full.item_rows[:, -1].any()
    assert full.item_rows[:, :-1].all()


def test_the_linear_time_form_is_the_sum_over_all_pairs() -> None:
    """Equation 1, fact by fact and pair by pair."""
    model = make("fm")
    samples = batch(model, 6)
    values = {name: p.detach().double() for name, p in model.named_parameters()}
    for at in range(6):
        item, (hour, weather) = samples["item"][at], samples["context"][at]
        facts = [(1.0, values["user_vector"]), (1.0, values["item_rows"][item])]
        facts += [(1.0, values["context_table"][hour])]
        facts += [(1.0, values["context_table"][CONTEXT["hour"] + weather])]
        facts += [(float(x), values["feature_table"][k]) for k, x in enumerate(FEATURES[item])]
        expected = sum(x * float(vector[-1]) for x, vector in facts)
        for (x, left), (y, right) in combinations(facts, 2):
            expected += x * y * float(left[:-1] @ right[:-1])
        assert model.score(samples["context"][at])[item].item() == pytest.approx(expected, rel=1e-4)


def test_context_changes_the_order_of_items() -> None:
    model = make("fm")
    orders = {
        tuple(model.score(torch.tensor([hour, weather])).argsort().tolist())
        for hour in range(CONTEXT["hour"])
        for weather in range(CONTEXT["weather"])
    }
    assert len(orders) > 1


def test_the_fields_of_a_context_do_not_overlap() -> None:
    """Weather 0 is a fact of its own and not hour 0."""
    model = make("fm")
    samples = batch(model, 6)
    samples["context"] = torch.zeros(6, 2, dtype=torch.int64)
    loss = model.loss(*samples.values()).sum()
    (gradient,) = torch.autograd.grad(loss, model.get_parameter("context_table"))
    assert gradient.any(1).nonzero().flatten().tolist() == [0, CONTEXT["hour"]]
