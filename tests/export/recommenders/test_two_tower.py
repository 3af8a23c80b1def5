import pytest
import torch

from export.errors import RecommenderError
from export.losses import softplus
from export.recommender import parameter_specs
from export.recommenders.two_tower import TwoTower
from tests.export.recommenders.cases import FEATURES, ITEMS, batch, make
from wire.manifest import BatchKind, ParameterSpec, Role


def test_parameters_and_roles() -> None:
    content = TwoTower(items=ITEMS, features=FEATURES, dimension=2, hidden=5)
    assert {spec.name: spec.role for spec in parameter_specs(content)} == {
        **dict.fromkeys(("item_layer", "item_bias", "item_head"), Role.DENSE),
        **dict.fromkeys(("user_layer", "user_bias", "user_head"), Role.DENSE),
        "features": Role.FROZEN_ROWS,
    }
    assert content.batch is BatchKind.PAIRWISE
    full = TwoTower(
        items=ITEMS,
        features=FEATURES,
        dimension=2,
        hidden=5,
        loss="bce",
        residual=True,
        personal=True,
    )
    assert {
        ParameterSpec("item_rows", Role.ROWS, (ITEMS, 2)),
        ParameterSpec("user_vector", Role.PRIVATE, (2,)),
        ParameterSpec("user_layer", Role.DENSE, (5, 5)),
        ParameterSpec("bias", Role.DENSE, (1,)),
    } < set(parameter_specs(full))
    assert full.batch is BatchKind.POINTWISE


@pytest.mark.parametrize("case", ["two_tower", "two_tower with all"])
def test_it_is_the_product_of_two_towers(case: str) -> None:
    """Written with the item tower's head on the items, and the mean over those present."""
    model = make(case)
    samples = batch(model, 6)
    values = {name: p.detach().double() for name, p in model.named_parameters()}
    content = FEATURES.double()
    hidden = torch.relu(content @ values["item_layer"] + values["item_bias"])
    items = hidden @ values["item_head"] + values.get("item_rows", torch.zeros(()))
    facts = torch.cat([content, values["item_rows"]], dim=1) if "item_rows" in values else content
    for at in range(6):
        before = samples["history"][at][samples["present"][at] == 1]
        pooled = facts[before].mean(0) if len(before) else torch.zeros(facts.shape[1])
        inner = torch.relu(pooled.double() @ values["user_layer"] + values["user_bias"])
        user = inner @ values["user_head"] + values.get("user_vector", torch.zeros(()))
        expected = items @ user + values.get("bias", torch.zeros(1))
        score = model.score(samples["history"][at], samples["present"][at])
        torch.testing.assert_close(score.double(), expected, rtol=1e-4, atol=1e-5)


def test_an_item_that_nobody_touched_is_scored_by_its_content() -> None:
    """The last item looks like the first, and training never sees it."""
    content = torch.eye(4)[torch.tensor([0, 0, 1, 1, 2, 3, 0])]
    model = TwoTower(items=7, features=content, dimension=4, hidden=16, history=2, residual=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.04)
    liked, other = torch.tensor([0, 1, 0, 1]), torch.tensor([2, 3, 4, 5])
    history, present = torch.tensor([[1, 0]]).expand(4, 2), torch.ones(4, 2)
    for _ in range(50):
        loss = model.loss(liked, other, history, present).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    score = model.score(history[0], present[0])
    assert model.item_rows is not None
    assert not model.item_rows[6].any()
    assert score[6] > score[2:6].max() + 1.0


def test_the_loss_of_a_pair_is_a_softmax_over_it() -> None:
    model = make("two_tower")
    samples = batch(model, 3)
    losses = model.loss(*samples.values())
    for at in range(3):
        score = model.score(samples["history"][at], samples["present"][at])
        pair = score[torch.stack([samples["positive"][at], samples["negative"][at]])]
        torch.testing.assert_close(losses[at], -pair.log_softmax(0)[0])
        torch.testing.assert_close(losses[at], softplus(pair[1] - pair[0]))


def test_the_scale_of_the_features_does_not_show_at_the_start() -> None:
    history, present = torch.tensor([1, 2]), torch.ones(2)
    first, second = (
        TwoTower(items=ITEMS, features=features, history=2)
        for features in (FEATURES, 1_000 * FEATURES)
    )
    torch.testing.assert_close(first.score(history, present), second.score(history, present))
    assert torch.equal(FEATURES, first.features)


def test_it_needs_content() -> None:
    with pytest.raises(RecommenderError, match="give features"):
        TwoTower(items=3)
