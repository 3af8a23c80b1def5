"""One small recommender of each kind that ships."""

from collections.abc import Callable, Mapping

import torch

from export.recommender import Recommender
from export.recommenders import RECOMMENDERS

__all__ = ["CONTEXT", "FEATURES", "ITEMS", "SMALL"]

ITEMS = 40
FEATURES = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))
CONTEXT = {"weekday": 7, "weather": 3}

SMALL: Mapping[str, Callable[[], Recommender]] = {
    "linear": lambda: RECOMMENDERS["linear"](items=ITEMS, context=CONTEXT, features=FEATURES),
    "mf": lambda: RECOMMENDERS["mf"](items=ITEMS, dimension=4, bias=True),
    "mf-bpr": lambda: RECOMMENDERS["mf"](items=ITEMS, dimension=4, loss="bpr"),
    "neumf": lambda: RECOMMENDERS["neumf"](items=ITEMS, dimension=4, hidden=6),
    "fm": lambda: RECOMMENDERS["fm"](items=ITEMS, dimension=4, context=CONTEXT),
    "two_tower": lambda: RECOMMENDERS["two_tower"](
        items=ITEMS, dimension=4, hidden=6, history=5, features=FEATURES
    ),
    "sasrec": lambda: RECOMMENDERS["sasrec"](items=ITEMS, dimension=4, history=5),
}
