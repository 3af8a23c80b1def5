"""What each device of a fleet is like, and when it has a connection.

Pure: drawn from a scenario's table [fleet] with a generator and a time that are handed in, so that
a simulation and real agents on the wall's clock live in the same world.
"""

from device_sims.nature.energy import Energy
from device_sims.nature.nature import Conditions, Nature, Stretch
from device_sims.nature.population import Population
from device_sims.nature.trace import read_trace

__all__ = ["Conditions", "Energy", "Nature", "Population", "Stretch", "read_trace"]
