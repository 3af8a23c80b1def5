"""The scenario format: one TOML file, a module for each of its tables; see docs/scenarios.md.

``rivulet-fleet simulate --example`` prints a file with every key and its default.
"""

from device_sims.scenario.attackers import Attack, Attackers
from device_sims.scenario.data import DataChoice
from device_sims.scenario.errors import ScenarioError
from device_sims.scenario.faults import Faults
from device_sims.scenario.fleet import DeviceClass, FleetBehaviour, Traits
from device_sims.scenario.loading import load_interactions
from device_sims.scenario.run import Run
from device_sims.scenario.scenario import (
    TABLES,
    Scenario,
    example,
    overlay,
    read_document,
    read_scenario,
    to_toml,
)
from device_sims.scenario.selection import Selection
from device_sims.scenario.service import Service

__all__ = [
    "TABLES",
    "Attack",
    "Attackers",
    "DataChoice",
    "DeviceClass",
    "Faults",
    "FleetBehaviour",
    "Run",
    "Scenario",
    "ScenarioError",
    "Selection",
    "Service",
    "Traits",
    "example",
    "load_interactions",
    "overlay",
    "read_document",
    "read_scenario",
    "to_toml",
]
