"""The merge, as pure functions over plain arrays: no clock, no storage, no network."""

from aggregator.merging.fedbuff import Change, apply, combine, merge
from aggregator.merging.rule import RowCorrection, Rule, RuleError, Weighting
from aggregator.merging.staleness import StalenessWeight, constant, polynomial
from aggregator.merging.state import Contribution, ServerState

__all__ = [
    "Change",
    "Contribution",
    "RowCorrection",
    "Rule",
    "RuleError",
    "ServerState",
    "StalenessWeight",
    "Weighting",
    "apply",
    "combine",
    "constant",
    "merge",
    "polynomial",
]
