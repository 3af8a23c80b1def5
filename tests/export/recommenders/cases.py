"""Small recommenders of each kind, and batches for them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from export.recommender import Recommender, batch_inputs
from export.recommenders import RECOMMENDERS

ITEMS = 12
CONTEXT = {"hour": 4, "weather": 3}
FEATURES = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(5))

CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "linear": ("linear", {"l2": 0.1}),
    "linear squared": (
        "linear",
        {"loss": "squared", "context": CONTEXT, "features": FEATURES, "l2": 0.1},
    ),
    "linear without item rows": ("linear", {"features": FEATURES, "bias": False}),
    "mf": ("mf", {"dimension": 3}),
    "mf bpr": ("mf", {"dimension": 3, "loss": "bpr", "bias": True}),
    "neumf": ("neumf", {"dimension": 3, "hidden": 4}),
    "neumf deep": ("neumf", {"dimension": 3, "hidden": 6, "layers": 3, "l2": 0.0}),
    "fm": ("fm", {"dimension": 3, "context": CONTEXT, "features": FEATURES}),
    "fm of user and item": ("fm", {"dimension": 3}),
    "two_tower": (
        "two_tower",
        {"features": FEATURES, "dimension": 3, "hidden": 5, "history": 4},
    ),
    "two_tower with all": (
        "two_tower",
        {
            "features": FEATURES,
            "dimension": 3,
            "hidden": 5,
            "history": 4,
            "loss": "bce",
            "residual": True,
            "personal": True,
        },
    ),
    "sasrec": ("sasrec", {"dimension": 4, "history": 5}),
    "sasrec wide": ("sasrec", {"dimension": 4, "history": 5, "blocks": 2, "heads": 2, "l2": 0.1}),
}
"""Name and options of each model, by what the tests call it."""


def make(case: str, **more: Any) -> Recommender:
    """The recommender of a case, moved away from its start, where many terms are 0."""
    kind, options = CASES[case]
    recommender = RECOMMENDERS[kind](items=ITEMS, **options, **more)
    random = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in recommender.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return recommender


def batch(recommender: Recommender, size: int, seed: int = 1) -> dict[str, Tensor]:
    """Random samples; the first has a full history, the second none, the third one item, ..."""
    random = torch.Generator().manual_seed(seed)
    inputs: dict[str, Tensor] = {}
    for name, what in batch_inputs(recommender).items():
        shape = [int(n) for n in what.shape(size)]
        inputs[name] = torch.randint(ITEMS, shape, generator=random)
        if name == "label":
            inputs[name] = inputs[name].remainder(2).float()
        elif name == "context":
            inputs[name] %= torch.tensor(list(recommender.context.values()))
        elif name == "present":
            lengths = torch.arange(shape[1], shape[1] + size) % (shape[1] + 1)
            inputs[name] = (torch.arange(shape[1]) >= shape[1] - lengths.unsqueeze(1)).float()
    return inputs
