"""A merge, from a buffer of updates to the step that it makes.

Weigh, defend, take the mean, correct it, let the server's optimizer step: each is a module of its
own, and a rule says which. All of it is a function of the state, the buffer and the rule, in
float64 and in the order of the ledger ids, so a merge has the same bits wherever and in whatever
order it is run. Its time goes with the rows that the buffer touches, never with a table.
"""

from collections.abc import Callable, Mapping, Sequence

from aggregator.merging import ca2fl, fadas, fedasync, fedavg, fedbuff, heat, row_staleness
from aggregator.merging.average import Average, average
from aggregator.merging.choices import Kind, RowCorrection
from aggregator.merging.optimizers import SLOTS, move
from aggregator.merging.part import Part
from aggregator.merging.robust import clip_rows, multi_krum
from aggregator.merging.rule import Rule
from aggregator.merging.state import Contribution, ServerState
from aggregator.merging.step import Change, Step, apply

__all__ = ["combine", "merge", "weigh"]

Weigh = Callable[[ServerState, Sequence[Contribution], Rule], list[Part]]

_WEIGH: Mapping[Kind, Weigh] = {
    Kind.FEDAVG: fedavg.weigh,
    Kind.FEDASYNC: fedasync.weigh,
    Kind.FEDBUFF: fedbuff.weigh,
    Kind.FADAS: fadas.weigh,
    Kind.CA2FL: ca2fl.weigh,
}


def merge(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> ServerState:
    """The next version: the state with a buffer of updates folded in.

    Args:
        state: the current version; not modified.
        batch: the buffered updates, in any order. An empty one still makes a version.
        rule: how they are merged.

    Returns:
        A state with version + 1.

    Raises:
        ValueError: an update's base version is later than the state's, or a delta does not fit.
    """
    return apply(state, combine(state, batch, rule))


def combine(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> Step:
    """What the merge of a batch changes; see ``merge``."""
    ordered = sorted(batch, key=lambda contribution: contribution.id)
    parts = _defended(weigh(state, ordered, rule), rule)
    averages = average(parts, rule)
    averages, memory = _correct(state, ordered, parts, averages, rule)
    rate = _rate(state, ordered, rule)
    parameters = {}
    for name, mean in averages.items():
        parameters[name], learned = move(state, name, mean, rule=rule, rate=rate)
        memory |= learned
    return Step(state.version, parameters, memory, _useless(state, rule))


def weigh(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> list[Part]:
    """The parts of a buffer, in its order. An update that weighs nothing is not one of them."""
    return [part for part in _WEIGH[rule.kind](state, batch, rule) if part.fresh > 0.0]


def _defended(parts: list[Part], rule: Rule) -> list[Part]:
    # Clipped first: then no length, only directions, can set a part apart from the others.
    if rule.clips_rows:
        parts = clip_rows(parts, rule.row_clip)
    return multi_krum(parts, rule.krum_byzantine) if rule.leaves_out else parts


def _correct(
    state: ServerState,
    batch: Sequence[Contribution],
    parts: Sequence[Part],
    averages: dict[str, Average],
    rule: Rule,
) -> tuple[dict[str, Average], dict[str, Change]]:
    memory: dict[str, Change] = {}
    if rule.kind is Kind.CA2FL:
        averages, memory = ca2fl.calibrate(state, batch, averages)
    if rule.row_correction is RowCorrection.HEAT:
        averages, memory = heat.correct(state, parts, averages, rule.heat_limit)
    if rule.row_staleness:
        memory |= row_staleness.record(state, averages)
    return averages, memory


def _rate(state: ServerState, batch: Sequence[Contribution], rule: Rule) -> float:
    if rule.kind is Kind.FADAS:
        return fadas.learning_rate(state, batch, rule)
    return rule.server_learning_rate


def _useless(state: ServerState, rule: Rule) -> frozenset[str]:
    """Names of memory that another rule left."""
    used = {
        *SLOTS[rule.optimizer],
        *(ca2fl.SLOTS if rule.kind is Kind.CA2FL else ()),
        *(heat.SLOTS if rule.row_correction is RowCorrection.HEAT else ()),
        *(row_staleness.SLOTS if rule.row_staleness else ()),
    }
    return frozenset(name for name in state.memory if name.partition("/")[0] not in used)
