"""Commands that go through the database: the same results and errors as without."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.blobs import BlobsUnavailableError
from aggregator.commands import (
    Command,
    CreateTask,
    ForgetLineage,
    Promote,
    Rollback,
    Steer,
    carry_out,
    result_of,
)
from aggregator.desk import PATIENCE_S, Desk
from aggregator.engine import TaskError
from aggregator.fold import FoldError
from aggregator.ledger import Errand, Errands, LedgerUnavailableError, open_database
from aggregator.merge import Merge
from aggregator.merging import RuleError
from aggregator.metrics import Instruments
from aggregator.orders import Steering
from tests.aggregator.workshop import ManualClock, Workshop, make_bundle, make_update
from wire.bundle import Bundle
from wire.errors import WireError


class Relay:
    """A desk in one process and a merge in another, on one database."""

    def __init__(self, workshop: Workshop, url: str, *, merges: bool = True) -> None:
        self.errands = Errands(open_database(url))
        self.clock = ManualClock()
        self.merge = Merge(
            workshop.engine, errands=self.errands, clock=self.clock, instruments=Instruments()
        )
        self._merges = merges
        self.desk = Desk(self.errands, self.clock, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.clock.now += seconds
        if self._merges:
            self.clock.now += 1.0
            self.merge.tick()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'ledger.db'}"


@pytest.fixture
def relay(workshop: Workshop, url: str) -> Relay:
    return Relay(workshop, url)


def test_commands_have_their_results(
    relay: Relay, workshop: Workshop, bundle: Bundle, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", name="other")
    for entry in other.manifest.files:
        workshop.blobs.put_file(other.path(entry), entry.sha256)
    assert relay.desk.call(CreateTask(other.raw_manifest)) == other.task
    relay.desk.call(Steer(bundle.task, Steering(paused=True, rule={"buffer_size": 9})))
    assert workshop.engine.tasks[bundle.task].record.paused
    assert workshop.engine.tasks[bundle.task].orders.rule.buffer_size == 9
    assert relay.errands.waiting() == []


def test_errors_are_those_that_a_client_is_told(
    relay: Relay, bundle: Bundle, tmp_path: Path
) -> None:
    stranger = make_bundle(tmp_path / "stranger", name="stranger")
    with pytest.raises(TaskError, match="upload the bundle's files"):
        relay.desk.call(CreateTask(stranger.raw_manifest))
    with pytest.raises(WireError):
        relay.desk.call(CreateTask(b"not a manifest"))
    with pytest.raises(WireError, match="buffer_size"):
        relay.desk.call(Steer(bundle.task, Steering(rule={"buffer_size": 0})))
    with pytest.raises(KeyError):
        relay.desk.call(Steer("0" * 32, Steering(paused=True)))


def test_going_back_and_a_lineage_that_is_not_there(
    relay: Relay, workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", *(make_update(bundle, n) for n in (1, 2, 3)))
    assert relay.desk.call(Rollback(bundle.task, 0)) == 2
    with pytest.raises(FoldError, match="9"):
        relay.desk.call(Rollback(bundle.task, 9))
    with pytest.raises(KeyError):
        relay.desk.call(Promote(bundle.task, 1))
    relay.desk.call(ForgetLineage(bundle.task, 1))


def test_a_command_that_nobody_carries_out_is_withdrawn(
    workshop: Workshop, url: str, bundle: Bundle
) -> None:
    relay = Relay(workshop, url, merges=False)
    begun = relay.clock.now
    with pytest.raises(TimeoutError, match="steer"):
        relay.desk.call(Steer(bundle.task, Steering(paused=True)))
    assert relay.clock.now - begun >= PATIENCE_S
    assert relay.errands.waiting() == []


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuleError("no"), WireError),
        (BlobsUnavailableError("away"), BlobsUnavailableError),
        (ZeroDivisionError("oh"), RuntimeError),
    ],
)
def test_every_error_has_a_word(
    error: Exception,
    told: type[Exception],
    workshop: Workshop,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workshop.engine, "steer", raising(error))
    command: Command[None] = Steer(bundle.task, Steering(paused=True))
    answer = carry_out(workshop.engine, Errand(1, command.kind, command.encode()))
    with pytest.raises(told, match=str(error)):
        result_of(answer)


def test_what_the_database_refuses_waits_for_another_time(
    relay: Relay, workshop: Workshop, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Steer(bundle.task, Steering(paused=True))
    relay.errands.leave(command.kind, command.encode(), at=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(workshop.engine, "steer", raising(LedgerUnavailableError("away")))
        relay.merge.tick()
    assert len(relay.errands.waiting()) == 1
    relay.clock.now += 2.0
    relay.merge.tick()
    assert relay.errands.waiting() == []
    assert workshop.engine.tasks[bundle.task].record.paused


def test_a_command_of_a_newer_version_is_not_known(workshop: Workshop) -> None:
    with pytest.raises(RuntimeError, match="knows no command dance"):
        result_of(carry_out(workshop.engine, Errand(1, "dance", b"")))


def test_updates_that_others_took_in_are_merged(
    relay: Relay, workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", make_update(bundle, 1), make_update(bundle, 2))
    task = workshop.engine.tasks[bundle.task]
    # As if it did not know of them yet: they turn up in the wrong order.
    first, second = task._waiting
    task._waiting.clear()
    task.add([second], now=workshop.clock.now)
    relay.merge.tick()
    assert [update.id for update in task._waiting] == [first.id, second.id]
    workshop.send("a", make_update(bundle, 3))
    assert task.version == 1
