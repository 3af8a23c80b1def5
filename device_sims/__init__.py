"""Fleets of agents, data sets, brokers and evidence."""
