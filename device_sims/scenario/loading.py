"""The data of a scenario."""

import argparse

from device_sims.data_options import DATASETS, load_data
from device_sims.datasets import Interactions, take_users
from device_sims.scenario.data import DataChoice
from device_sims.scenario.errors import ScenarioError

__all__ = ["load_interactions"]

SEED = 0
"""The data are the same for every seed of a run: what differs then is the fleet."""


def load_interactions(data: DataChoice) -> Interactions:
    """Load what [data] names, and take as many users as it says.

    Raises:
        DatasetError: it cannot be loaded.
        ScenarioError: there are fewer users.
        ValueError: an option does not go with the data set.
    """
    options = {option: None for taken in DATASETS.values() for option in taken}
    synthetic = data.dataset == "synthetic"
    found = load_data(
        argparse.Namespace(
            dataset=data.dataset,
            data=list(data.files),
            devices=data.users if synthetic else None,
            seed=SEED,
            skip_bad_lines=False,
            **{**options, **data.options},
        )
    )
    if data.users > found.user_count:
        raise ScenarioError(
            f"data.users is {data.users}; expected at most {found.user_count}, "
            f"the users of {found.name}"
        )
    return take_users(found, data.users or found.user_count, seed=SEED)
