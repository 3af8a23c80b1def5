"""The database is looked at once a second, however often somebody asks."""

from aggregator.ledger import LedgerUnavailableError
from aggregator.probe import Probe
from tests.aggregator.workshop import ManualClock


def test_an_answer_is_good_for_a_second() -> None:
    clock, checks = ManualClock(), []
    problem: LedgerUnavailableError | None = None

    def check() -> None:
        checks.append(clock.now)
        if problem is not None:
            raise problem

    probe = Probe(check, clock)
    assert [probe.problem() for _ in range(5)] == [None] * 5
    assert len(checks) == 1
    problem = LedgerUnavailableError("disk full")
    assert probe.problem() is None
    clock.now += 1.0
    assert [probe.problem() for _ in range(5)] == ["disk full"] * 5
    problem = None
    clock.now += 1.0
    assert probe.problem() is None
    assert len(checks) == 3
