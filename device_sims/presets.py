"""What trains well where nothing else is said; measured, see docs/measurements.md."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from wire.manifest import Optimizer

__all__ = ["preset"]

_SYNTHETIC: Mapping[str, Any] = {
    "passes": 10,
    "concurrency": 40,
    "announce_interval": 1.0,
    "optimizer": Optimizer.SGD,
    "learning_rate": 0.1,
    "epochs": 2,
    "batch_size": 64,
    "server_learning_rate": 1.0,
    "options": {},
}
_FILE: Mapping[str, Any] = {
    "passes": 40,
    "concurrency": 80,
    # Every announcement goes to every device: in a large fleet that is most of the traffic.
    "announce_interval": 3.0,
    "optimizer": Optimizer.SGD,
    "learning_rate": 0.04,
    "epochs": 1,
    "batch_size": 64,
    "server_learning_rate": 2.0,
    "options": {},
}
_TOWERS: Mapping[str, Any] = {
    "optimizer": Optimizer.ADAM,
    "learning_rate": 0.003,
    "epochs": 2,
    # Without rows of their own, items of equal content tie, and a tie is no hit.
    "options": {"residual": True},
}
# A step sums over its samples. Where many facts add up to a score, or a network amplifies it, the
# rate that suits matrix factorisation runs away.
_OWN: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {
        ("mf", "synthetic"): {"options": {"dimension": 16, "l2": 0.005}},
        ("mf", "smartthings"): {"epochs": 2, "options": {"dimension": 16}},
        ("linear", "synthetic"): {"learning_rate": 0.02},
        ("linear", "file"): {"learning_rate": 0.01},
        ("neumf", "synthetic"): {"learning_rate": 0.01},
        ("neumf", "file"): {"learning_rate": 0.01},
        ("fm", "synthetic"): {"learning_rate": 0.02},
        ("fm", "movielens"): {"options": {"dimension": 32}},
        ("fm", "file"): {"learning_rate": 0.02, "batch_size": 16},
        ("two_tower", "synthetic"): _TOWERS,
        ("two_tower", "file"): _TOWERS,
        ("sasrec", "synthetic"): {"learning_rate": 0.05, "epochs": 4},
        ("sasrec", "file"): {"learning_rate": 0.05, "epochs": 4},
        ("sasrec", "smartthings"): {
            "learning_rate": 0.05,
            "epochs": 4,
            "options": {"dimension": 16, "history": 10},
        },
    }
)


def preset(recommender: str, dataset: str) -> dict[str, Any]:
    """Values of the demo's options for a recommender on a data set; ``options`` has its own."""
    common = _SYNTHETIC if dataset == "synthetic" else _FILE
    kind = "synthetic" if dataset == "synthetic" else "file"
    own = _OWN.get((recommender, dataset)) or _OWN.get((recommender, kind)) or {}
    return {**common, **own}
