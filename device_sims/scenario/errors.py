"""What is wrong with a scenario."""

from wire.errors import WireError

__all__ = ["ScenarioError"]


class ScenarioError(WireError):
    """A scenario is refused; the message names the key, the value and what was expected."""
