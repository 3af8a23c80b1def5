"""Data sets: loaders, the built-in synthetic one, and the split into train, validation and test."""

from device_sims.datasets.delimited import load_delimited
from device_sims.datasets.errors import DatasetError, FormatError, LineError
from device_sims.datasets.interactions import (
    Cleaning,
    Events,
    Interactions,
    index_events,
    take_users,
)
from device_sims.datasets.movielens import load_movielens
from device_sims.datasets.split import Histories, Split, split_latest
from device_sims.datasets.synthetic import synthesise

__all__ = [
    "Cleaning",
    "DatasetError",
    "Events",
    "FormatError",
    "Histories",
    "Interactions",
    "LineError",
    "Split",
    "index_events",
    "load_delimited",
    "load_movielens",
    "split_latest",
    "synthesise",
    "take_users",
]
