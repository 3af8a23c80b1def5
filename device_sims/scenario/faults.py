"""The table [faults]: how often something goes wrong."""

from dataclasses import dataclass

from device_sims.scenario.table import MAX_S, Checks, read_table

__all__ = ["Faults", "read_faults"]

CERTAIN_ENOUGH = 0.2
"""The most of what strikes at a write: at certain death nothing would ever be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often something goes wrong: probabilities, 0 to 1, unless it says otherwise.

    Attributes:
        lost: of a message, on the way to the broker or from it.
        duplicated: of a message to the aggregator, to arrive a second time.
        delayed: of a message, to take ``delay_s`` longer on average, so that others overtake it.
        delay_s: mean of that; exponential.
        corrupted: of a message to the aggregator, to have a bit flipped.
        agent_crash: of an agent, at each write to its storage: before it or after it, at most 0.2.
        aggregator_crash: of the aggregator, at each write to its ledger and blobs, likewise.
        restart_s: seconds until what crashed is started again.
        backup: of an agent that crashed, to come back with the storage of its last start.
        agent_full: of an agent, at each write to its storage: the disk is full, at most 0.2.
        aggregator_full: of the aggregator, at each write to its ledger and blobs, likewise.
        full_s: mean seconds until a full disk has space again; exponential.
        broker_restarts_h: how often the broker is restarted in an hour, on average, 0 to 60. All
            connections break; what was on its way to it or from it is lost, what the aggregator had
            last is delivered to it again.
        seed: draws the faults anew, and nothing else.
    """

    lost: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0
    delay_s: float = 60.0
    corrupted: float = 0.0
    agent_crash: float = 0.0
    aggregator_crash: float = 0.0
    restart_s: float = 5.0
    backup: float = 0.0
    agent_full: float = 0.0
    aggregator_full: float = 0.0
    full_s: float = 60.0
    broker_restarts_h: float = 0.0
    seed: int = 0


def read_faults(given: object) -> Faults:
    """Read the table.

    Raises:
        ScenarioError: names the key, the value and what was expected.
    """
    faults = read_table(Faults, given, "faults")
    checks = Checks(faults, "faults")
    checks.numbers(("delay_s", "restart_s", "full_s"), 0.0, MAX_S)
    checks.numbers(("lost", "duplicated", "delayed", "corrupted", "backup"), 0.0, 1.0)
    at_writes = ("agent_crash", "aggregator_crash", "agent_full", "aggregator_full")
    checks.numbers(at_writes, 0.0, CERTAIN_ENOUGH)
    checks.number("broker_restarts_h", 0.0, 60.0)
    checks.integer("seed", 0, 2**63 - 1)
    return faults
