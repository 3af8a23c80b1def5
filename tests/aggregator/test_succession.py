"""Taking over: who holds the lock works, and whoever lost it stops."""

import pytest

from aggregator.fold import FoldError
from aggregator.ledger import LedgerUnavailableError, SupersededError
from aggregator.succession import Succession


class Office:
    """What there is one of: its holder's name."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.reachable = True


class OfficeLock:
    """One candidate's hold on it."""

    def __init__(self, office: Office, name: str) -> None:
        self._office, self._name = office, name

    def acquire(self) -> bool:
        if not self._office.reachable:
            raise LedgerUnavailableError("the database is away")
        self._office.holder = self._office.holder or self._name
        return self._office.holder == self._name

    def held(self) -> bool:
        return self._office.reachable and self._office.holder == self._name

    def release(self) -> None:
        if self._office.holder == self._name:
            self._office.holder = None


class Shift:
    """Work that remembers how it ended."""

    def __init__(self) -> None:
        self.ended: bool | None = None

    def stop(self, *, orderly: bool) -> None:
        self.ended = orderly


class Candidate:
    """A succession and its shifts; ``obstacle`` is raised when one begins."""

    def __init__(self, office: Office, name: str) -> None:
        self.shifts: list[Shift] = []
        self.failures: list[BaseException] = []
        self.obstacle: Exception | None = None
        self.succession = Succession(
            OfficeLock(office, name), begin=self._begin, on_failure=self.failures.append
        )

    def _begin(self) -> Shift:
        if self.obstacle is not None:
            raise self.obstacle
        self.shifts.append(Shift())
        return self.shifts[-1]

    @property
    def works(self) -> bool:
        return self.succession.work is not None


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def first(office: Office) -> Candidate:
    return Candidate(office, "first")


@pytest.fixture
def second(office: Office) -> Candidate:
    return Candidate(office, "second")


def step(*candidates: Candidate) -> None:
    for candidate in candidates:
        candidate.succession.step()


def test_one_works_and_the_other_takes_over_when_it_dies(
    office: Office, first: Candidate, second: Candidate
) -> None:
    step(first, second, first, second)
    assert (first.works, second.works) == (True, False)
    office.holder = None  # The database has noticed that the first is dead.
    step(second)
    assert second.works


def test_a_stop_ends_the_work_in_order_and_lets_the_next_one_begin(
    first: Candidate, second: Candidate
) -> None:
    step(first, second)
    first.succession.stop()
    assert first.shifts[0].ended is True
    step(second)
    assert second.works


def test_a_lock_that_another_got_meanwhile_ends_the_work_at_once(
    office: Office, first: Candidate
) -> None:
    step(first)
    office.holder = "second"
    step(first, first)
    assert not first.works
    assert first.shifts[0].ended is False
    assert office.holder == "second"


def test_a_lock_that_was_lost_and_got_back_begins_the_work_anew(
    office: Office, first: Candidate
) -> None:
    step(first)
    office.reachable = False
    step(first, first)
    assert not first.works
    assert first.succession.problem == "the database is away"
    office.reachable, office.holder = True, None
    step(first)
    assert [shift.ended for shift in first.shifts] == [False, None]
    assert first.succession.problem is None


def test_who_learns_of_its_successor_from_the_ledger_stands_by(
    office: Office, first: Candidate
) -> None:
    step(first)
    first.succession.work_failed(SupersededError("another has taken over"))
    step(first)
    assert first.shifts[0].ended is False
    assert not first.failures
    assert office.holder is None
    step(first)
    assert first.works


@pytest.mark.parametrize(
    "obstacle", [LedgerUnavailableError("away"), SupersededError("late"), OSError("disk full")]
)
def test_what_passes_is_tried_again_by_whoever_gets_the_lock(
    obstacle: Exception, first: Candidate, second: Candidate
) -> None:
    first.obstacle = obstacle
    step(first)
    assert first.succession.problem == str(obstacle)
    step(second)
    assert second.works
    assert not first.failures


def test_what_does_not_pass_ends_the_service(office: Office, first: Candidate) -> None:
    first.obstacle = FoldError("no snapshot is left")
    step(first)
    assert first.failures == [first.obstacle]
    assert office.holder is None


def test_work_that_fails_ends_the_service(first: Candidate) -> None:
    step(first)
    error = RuntimeError("a bug")
    first.succession.work_failed(error)
    step(first)
    assert first.failures == [error]
    assert first.shifts[0].ended is False


def test_the_thread_takes_over_and_stops(first: Candidate) -> None:
    first.succession.start()
    first.succession.stop()
    assert not first.works
    assert all(shift.ended is True for shift in first.shifts)
