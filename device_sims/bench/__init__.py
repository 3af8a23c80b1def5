"""Measured figures, each beside its goal: what `make bench` runs."""
