"""The merge, as pure functions over plain arrays: no clock, no storage, no network.

``rule`` says what can be configured, ``pipeline`` is the whole of a merge and names its parts, and
``step`` makes the next version.
"""

from aggregator.merging.choices import (
    Kind,
    Optimizer,
    RowCorrection,
    Staleness,
    StalenessScope,
    Weighting,
)
from aggregator.merging.options import RuleError
from aggregator.merging.pipeline import combine, merge
from aggregator.merging.rule import Rule
from aggregator.merging.state import Contribution, MemoryArray, ServerState
from aggregator.merging.step import Change, Step, advance, apply, overwritten, restore

__all__ = [
    "Change",
    "Contribution",
    "Kind",
    "MemoryArray",
    "Optimizer",
    "RowCorrection",
    "Rule",
    "RuleError",
    "ServerState",
    "Staleness",
    "StalenessScope",
    "Step",
    "Weighting",
    "advance",
    "apply",
    "combine",
    "merge",
    "overwritten",
    "restore",
]
