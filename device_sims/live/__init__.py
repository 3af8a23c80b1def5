"""A scenario in real time: production agents in a few processes on real connections."""
