"""Data sets: loaders, the built-in synthetic one, and the split into train, validation and test."""

from device_sims.datasets.delimited import load_delimited
from device_sims.datasets.errors import DatasetError, FormatError, LineError
from device_sims.datasets.frappe import FRAPPE_CONTEXT, FRAPPE_FEATURES, load_frappe
from device_sims.datasets.interactions import (
    Cleaning,
    ContextField,
    Events,
    Interactions,
    LabelColumn,
    index_events,
    take_users,
)
from device_sims.datasets.movielens import load_movielens
from device_sims.datasets.smartthings import (
    SMARTTHINGS_CONTEXT,
    SMARTTHINGS_FEATURES,
    load_smartthings,
)
from device_sims.datasets.split import Histories, Split, split_latest
from device_sims.datasets.synthetic import synthesise

__all__ = [
    "FRAPPE_CONTEXT",
    "FRAPPE_FEATURES",
    "SMARTTHINGS_CONTEXT",
    "SMARTTHINGS_FEATURES",
    "Cleaning",
    "ContextField",
    "DatasetError",
    "Events",
    "FormatError",
    "Histories",
    "Interactions",
    "LabelColumn",
    "LineError",
    "Split",
    "index_events",
    "load_delimited",
    "load_frappe",
    "load_movielens",
    "load_smartthings",
    "split_latest",
    "synthesise",
    "take_users",
]
