"""The table [task]: what is trained, and how devices train and encode."""

from collections.abc import Mapping
from typing import Any

from device_sims.model import Model
from device_sims.presets import preset
from device_sims.scenario.errors import ScenarioError
from device_sims.scenario.table import refuse_unknown
from wire.checks import Fields
from wire.manifest import Optimizer
from wire.policy import CodecPolicy, TrainingPolicy

__all__ = ["read_task", "task_table"]

KEYS = ("recommender", "options", "optimizer", "training", "codec")
FROM_PRESET = ("learning_rate", "epochs", "batch_size")


def read_task(given: object, dataset: str) -> Model:
    """Read the table; what it leaves out is what trains well on the data set.

    Raises:
        WireError: names the key, the value and what was expected.
    """
    if not isinstance(given, Mapping):
        raise ScenarioError(f"task is {given!r:.80}; expected a table, [task]")
    refuse_unknown(given, KEYS, "task")
    for key in ("options", "training", "codec"):
        if not isinstance(given.get(key, {}), Mapping):
            raise ScenarioError(f"task.{key} is {given[key]!r:.80}; expected a table")
    fields = Fields({"recommender": "mf", **given}, where="task", error=ScenarioError)
    recommender = fields.text("recommender")
    start = preset(recommender, dataset)
    training = {**{name: start[name] for name in FROM_PRESET}, **given.get("training", {})}
    optimizer = Fields(
        {"optimizer": given.get("optimizer", start["optimizer"])}, where="task", error=ScenarioError
    )
    return Model(
        recommender=recommender,
        options={**start["options"], **given.get("options", {})},
        optimizer=Optimizer(optimizer.choice("optimizer", tuple(Optimizer))),
        training=TrainingPolicy.from_dict(training),
        codec=CodecPolicy.from_dict(given.get("codec", {})),
    )


def task_table(model: Model) -> dict[str, Any]:
    """The table that a model is read from."""
    return {
        "recommender": model.recommender,
        "optimizer": model.optimizer.value,
        "options": dict(model.options),
        "training": model.training.to_dict(),
        "codec": model.codec.to_dict(),
    }
