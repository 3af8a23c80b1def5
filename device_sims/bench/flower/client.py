"""A client of Flower that trains our task on one user's history, in plain PyTorch.

Its own module, so that Flower's actors import it and keep what it has read; where that is stands in
the environment (see ``simulation.py``).
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["TASK", "MatrixFactorisation", "app", "histories", "local_update", "task"]

TASK = "FLOWER_COMPARISON_TASK"
USER = "user"


class MatrixFactorisation(nn.Module):
    """One vector for the user, one for each item; their product is the score."""

    def __init__(self, items: int, dimension: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, dimension)
        nn.init.normal_(self.items.weight, std=0.03)
        self.user = nn.Parameter(torch.randn(dimension) * 0.1)

    def forward(self, item: torch.Tensor) -> torch.Tensor:
        """Scores float32 [B] of items int64 [B]."""
        return self.items(item) @ self.user


@cache
def task() -> dict[str, Any]:
    """Options of the task; read once in each process."""
    torch.set_num_threads(1)
    return dict(json.loads((Path(os.environ[TASK]) / "task.json").read_text()))


@cache
def histories() -> list[np.ndarray]:
    """The items of each user."""
    with np.load(Path(os.environ[TASK]) / "histories.npz") as stored:
        return np.split(stored["items"], stored["starts"][1:-1])


@cache
def absent(user: int) -> np.ndarray:
    """The items that a user's history lacks."""
    return np.setdiff1d(np.arange(task()["items"]), histories()[user])


def local_update(model: MatrixFactorisation, user: int) -> int:
    """Train on a user's history; gives the number of steps.

    Each interaction and ``negatives`` items that are not in the history, shuffled, in batches of
    ``batch_size``; SGD on the sum of the samples' losses and of the penalty on the user's vector.
    """
    options, history = task(), histories()[user]
    optimizer = torch.optim.SGD(model.parameters(), lr=options["learning_rate"])
    steps = 0
    for _ in range(options["epochs"]):
        drawn = np.random.choice(absent(user), len(history) * options["negatives"])
        item = torch.from_numpy(np.concatenate([history, drawn]))
        label = torch.cat([torch.ones(len(history)), torch.zeros(len(drawn))])
        order = torch.randperm(len(item))
        for batch in order.split(options["batch_size"]):
            loss = binary_cross_entropy_with_logits(
                model(item[batch]), label[batch], reduction="sum"
            )
            loss = loss + len(batch) * options["l2"] / 2 * model.user.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    return steps


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One local update: the table as it came, the user's vector as this client left it."""
    options, user = task(), int(context.node_config["partition-id"])
    model = MatrixFactorisation(options["items"], options["dimension"])
    with torch.no_grad():
        model.items.weight.copy_(message.content["arrays"].to_torch_state_dict()["table"])
        if USER in context.state:
            model.user.copy_(context.state[USER].to_torch_state_dict()[USER])
    local_update(model, user)
    context.state[USER] = ArrayRecord({USER: model.user.detach()})
    content = {
        "arrays": ArrayRecord({"table": model.items.weight.detach()}),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(content=RecordDict(content), reply_to=message)
