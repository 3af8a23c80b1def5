import math

import pytest
import torch

from export.losses import bce, softplus


@pytest.mark.parametrize("x", [-1e4, -30.0, -1.0, 0.0, 1e-4, 1.0, 30.0, 1e4])
def test_softplus_and_its_slope_are_those_of_the_formula(x: float) -> None:
    value = torch.tensor([x], requires_grad=True)
    (gradient,) = torch.autograd.grad(softplus(value).sum(), value)
    exact = max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    slope = 1 / (1 + math.exp(-x)) if x > -700 else 0.0
    assert softplus(value).item() == pytest.approx(exact, abs=1e-7 * max(1.0, abs(x)))
    assert gradient.item() == pytest.approx(slope, abs=1e-7)


def test_bce_is_softplus_of_the_logit_away_from_its_label() -> None:
    logit = torch.linspace(-5, 5, 11)
    torch.testing.assert_close(bce(logit, torch.ones(11)), softplus(-logit))
    torch.testing.assert_close(bce(logit, torch.zeros(11)), softplus(logit))
