from typing import Any

import pytest
import torch

from export.errors import RecommenderError
from export.losses import bce
from export.recommender import parameter_specs
from export.recommenders.neumf import NeuralMatrixFactorisation
from tests.export.recommenders.cases import batch, make
from wire.manifest import ParameterSpec, Role


def test_parameters_and_roles() -> None:
    model = NeuralMatrixFactorisation(items=7, dimension=3, hidden=4, layers=3)
    assert set(parameter_specs(model)) == {
        ParameterSpec("user_gmf", Role.PRIVATE, (3,)),
        ParameterSpec("user_mlp", Role.PRIVATE, (3,)),
        ParameterSpec("item_rows", Role.ROWS, (7, 6)),
        ParameterSpec("user_layer", Role.DENSE, (3, 4)),
        ParameterSpec("layers.0", Role.DENSE, (3, 4)),
        ParameterSpec("layers.1", Role.DENSE, (4, 2)),
        ParameterSpec("layers.2", Role.DENSE, (2, 1)),
        ParameterSpec("biases.0", Role.DENSE, (4,)),
        ParameterSpec("biases.1", Role.DENSE, (2,)),
        ParameterSpec("biases.2", Role.DENSE, (1,)),
        ParameterSpec("head_gmf", Role.DENSE, (3,)),
        ParameterSpec("head_mlp", Role.DENSE, (1, 1)),
        ParameterSpec("head_bias", Role.DENSE, (1,)),
    }


def test_it_computes_what_the_paper_writes() -> None:
    """Equations 9, 10 and 12, with the user's vectors repeated for each sample."""
    model = make("neumf deep")
    samples = batch(model, 5)
    values = {name: p.detach().double() for name, p in model.named_parameters()}
    rows = values["item_rows"][samples["item"]]
    gmf = values["user_gmf"].expand(5, 3) * rows[:, :3]
    x = torch.cat([values["user_mlp"].expand(5, 3), rows[:, 3:]], dim=1)
    layers = [torch.cat([values["user_layer"], values["layers.0"]])]
    layers += [values[f"layers.{at}"] for at in (1, 2)]
    for at, layer in enumerate(layers):
        x = torch.relu(x @ layer + values[f"biases.{at}"])
    head = torch.cat([values["head_gmf"], values["head_mlp"][:, 0]])
    logit = torch.cat([gmf, x], dim=1) @ head + values["head_bias"]
    expected = bce(logit, samples["label"].double())
    losses = model.loss(*samples.values())
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)


def test_without_its_network_it_is_matrix_factorisation() -> None:
    model = NeuralMatrixFactorisation(items=7, dimension=3)
    with torch.no_grad():
        model.head_mlp.zero_()
    expected = model.item_rows[:, :3] @ model.user_gmf
    torch.testing.assert_close(model.score(), expected)


@pytest.mark.parametrize("option", ["hidden", "layers"])
def test_a_network_has_layers_and_they_have_width(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(RecommenderError, match=f"{option} is 0; expected at least 1"):
        NeuralMatrixFactorisation(items=3, **options)
