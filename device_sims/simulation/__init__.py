"""A fleet under a virtual clock: the production agents, codec, ledger and merge, without waiting.

Only time, network, disks and power are simulated. The same scenario and seed give the same bits.
"""
