import math

import pytest
import torch
from torch import Tensor

from export.errors import RecommenderError
from export.losses import softplus
from export.recommender import Recommender, parameter_specs
from export.recommenders.sasrec import SasRec
from tests.export.recommenders.cases import ITEMS, batch, make
from wire.manifest import ParameterSpec, Role

both = pytest.mark.parametrize("case", ["sasrec", "sasrec wide"])


def test_parameters_and_roles() -> None:
    model = SasRec(items=7, dimension=4, history=5, blocks=2)
    block: dict[str, tuple[int, ...]]
    block = {"attention": (4, 12), "inner": (4, 4), "outer": (4, 4)}
    block |= {"inner_bias": (4,), "outer_bias": (4,)}
    assert set(parameter_specs(model)) == {
        ParameterSpec("item_rows", Role.ROWS, (7, 4)),
        ParameterSpec("positions", Role.DENSE, (5, 4)),
        ParameterSpec("gain", Role.DENSE, (4,)),
        ParameterSpec("bias", Role.DENSE, (4,)),
        *(
            ParameterSpec(f"blocks.{at}.{name}", Role.DENSE, shape)
            for at in range(2)
            for name, shape in block.items()
        ),
    }


def normalised(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def slow_states(model: Recommender, history: list[int]) -> list[Tensor]:
    """The states after the actions of a window without padding, one by one, in float64."""
    values = {name: p.detach().double() for name, p in model.named_parameters()}
    places = values["positions"][-len(history) :]
    states = [
        values["item_rows"][item] + place for item, place in zip(history, places, strict=True)
    ]
    heads = 2 if "blocks.1.attention" in values else 1
    width = len(states[0]) // heads
    for at in range(heads):  # as many blocks as heads, in both cases
        block = {n.split(".")[2]: v for n, v in values.items() if n.startswith(f"blocks.{at}.")}
        projected = [normalised(state) @ block["attention"] for state in states]
        attended = []
        for now in range(len(states)):
            parts = []
            for head in range(heads):
                columns = [
                    slice((3 * head + k) * width, (3 * head + k + 1) * width) for k in range(3)
                ]
                query = projected[now][columns[0]]
                past = projected[: now + 1]
                weights = [math.exp(query @ p[columns[1]] / math.sqrt(width)) for p in past]
                mixed = [w * p[columns[2]] for w, p in zip(weights, past, strict=True)]
                parts.append(torch.stack(mixed).sum(0) / sum(weights))
            attended.append(states[now] + torch.cat(parts))
        states = []
        for state in attended:
            inner = torch.relu(normalised(state) @ block["inner"] + block["inner_bias"])
            states.append(state + inner @ block["outer"] + block["outer_bias"])
    return [normalised(state) * values["gain"] + values["bias"] for state in states]


@both
def test_losses_and_scores_are_those_of_a_window_without_padding(case: str) -> None:
    """Action by action: whatever the padding, it is as if it were not there."""
    model = make(case)
    samples = batch(model, 6)
    losses = model.loss(*samples.values())
    rows = model.get_parameter("item_rows").detach().double()
    for at in range(6):
        history, positive, negative, present = (values[at] for values in samples.values())
        length = int(present.sum())
        if not length:
            assert losses[at] == 0
            continue
        states = slow_states(model, history[-length:].tolist())
        terms = []
        for state, wanted, other in zip(
            states, rows[positive[-length:]], rows[negative[-length:]], strict=True
        ):
            squares = wanted.square().sum() + other.square().sum()
            terms.append(softplus(-state @ wanted) + softplus(state @ other))
            terms[-1] += 0.1 / 2 * squares if case == "sasrec wide" else 0.0
        expected = torch.stack(terms).mean().item()
        assert losses[at].item() == pytest.approx(expected, rel=1e-5)
        scores = model.score(history, present).double()
        torch.testing.assert_close(scores, rows @ states[-1], rtol=1e-4, atol=1e-5)


@both
@pytest.mark.parametrize("changed", range(5))
def test_an_action_changes_nothing_before_it(case: str, changed: int) -> None:
    """The gradient of a negative's row tells the state that it was compared with."""
    model = make(case)
    negatives = torch.arange(6, 11)

    def slopes(history: Tensor) -> Tensor:
        others = (torch.full((1, 5), 5), negatives.unsqueeze(0), torch.ones(1, 5))
        loss = model.loss(history.unsqueeze(0), *others).sum()
        (gradient,) = torch.autograd.grad(loss, model.get_parameter("item_rows"))
        return gradient[negatives]

    history = torch.arange(5)
    before = slopes(history)
    history[changed] = 11
    after = slopes(history)
    torch.testing.assert_close(before[:changed], after[:changed])
    assert (before[changed:] - after[changed:]).abs().amax(1).min() > 1e-4


def test_after_no_action_all_items_are_equal() -> None:
    score = make("sasrec").score(torch.zeros(5, dtype=torch.int64), torch.zeros(5))
    assert not score.any()


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_share_the_dimension(heads: int) -> None:
    with pytest.raises(RecommenderError, match="heads"):
        SasRec(items=ITEMS, dimension=4, heads=heads)
