"""A fleet under a virtual clock: the production agents, codec, ledger and merge, without waiting.

Only time, network and power are simulated. The same scenario and seed give the same bits.
"""

from device_sims.simulation.run import Outcome, simulate

__all__ = ["Outcome", "simulate"]
