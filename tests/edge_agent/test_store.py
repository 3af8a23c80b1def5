"""The device's database: what it keeps, how it is upgraded, what it refuses."""

import sqlite3
from dataclasses import replace
from itertools import starmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_agent.database
from edge_agent.database import MIGRATIONS
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.store import OutboxEntry, Store
from wire.delta import RowBlock, Tensor, add, squared_norm
from wire.manifest import ContextField, ParameterSpec, Role
from wire.policy import CodecPolicy

TASK = "0" * 32
SPECS = (
    ParameterSpec("table", Role.ROWS, (100_000, 3)),
    ParameterSpec("head", Role.DENSE, (2, 2)),
    ParameterSpec("user", Role.PRIVATE, (3,)),
)


def entry(sequence: int, size: int = 10, due: float = 0.0) -> OutboxEntry:
    return OutboxEntry(
        sequence=sequence,
        task=TASK,
        payload=bytes(size),
        base_version=0,
        created_at=0.0,
        attempts=0,
        next_attempt_at=due,
    )


def record(store: Store, waiting: OutboxEntry, residual: dict[str, object] | None = None) -> None:
    store.record_update(
        waiting,
        private={},
        residual=residual or {},  # type: ignore[arg-type]
        residual_updates=100,
        facts={"evaluation": None},
        received_bytes=5,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "agent.db")


def test_interactions_are_ordered_by_time_then_arrival_and_kept_once(store: Store) -> None:
    assert len(store.history()) == 0
    assert store.add_interactions(starmap(Interaction, [(5, 2.0), (9, 1.0), (7, 2.0)])) == 3
    assert store.add_interactions([Interaction(9, 1.0), Interaction(8, 3.0)]) == 1
    history = store.history()
    assert history.items.tolist() == [9, 5, 7, 8]
    assert history.items.dtype == np.int64
    assert history.context.shape == (4, 0)
    assert store.count_interactions() == 4


def test_context_comes_back_by_field_and_is_0_where_it_is_not_known(store: Store) -> None:
    store.add_interactions(
        [
            Interaction(1, 1.0, {"daytime": 3, "day.of-week": 2**40}),
            Interaction(2, 2.0, {"weather": 4, "daytime": 0}),
            Interaction(3, 3.0),
            Interaction(4, 4.0, {"day.of-week": 6}),
        ]
    )
    assert store.add_interactions([Interaction(3, 3.0, {"daytime": 1})]) == 0
    fields = [ContextField(name, 9) for name in ("day.of-week", "daytime", "mood")]
    history = store.history(fields)
    assert history.items.tolist() == [1, 2, 3, 4]
    assert history.context.tolist() == [[2**40, 3, 0], [0, 0, 0], [0, 0, 0], [6, 0, 0]]
    assert history.context.dtype == np.int64
    kept = store._database.execute("SELECT context FROM interactions ORDER BY id").fetchall()
    assert kept[1:3] == [('{"weather":4}',), (None,)]


def test_state_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    user, head = np.array([1, 2, 3], np.float32), np.array([[1, 0], [0, 2]], np.float32)
    rows = RowBlock(np.array([4, 99_999]), np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    store.keep_manifest(TASK, b"{}")
    store.record_update(
        entry(7),
        private={"user": user},
        residual={"table": rows, "head": head},
        residual_updates=100,
        facts={"evaluation": {"hr_at_10": 1.0}},
        received_bytes=11,
    )
    store.close()
    store = Store(tmp_path / "agent.db")
    assert store.last_sequence() == 7
    assert store.manifest(TASK) == b"{}"
    assert store.get("evaluation") == {"hr_at_10": 1.0}
    np.testing.assert_array_equal(store.private(TASK, SPECS)["user"], user)
    residual = store.residual(TASK, SPECS)
    np.testing.assert_array_equal(residual["head"], head)
    assert isinstance(residual["table"], RowBlock)
    np.testing.assert_array_equal(residual["table"].rows, rows.rows)
    np.testing.assert_array_equal(residual["table"].values, rows.values)
    assert store.entry(7) == entry(7)
    assert store.private("1" * 32, SPECS) == {}
    assert store.residual("1" * 32, SPECS) == {}


def test_a_residual_ages_while_it_waits(store: Store) -> None:
    policy = CodecPolicy(residual_keep=0.5, residual_updates=3)
    row = RowBlock(np.array([4]), np.ones((1, 3), np.float32))
    record(store, entry(1), {"table": row, "head": np.full((2, 2), 8, np.float32)})
    touched: dict[str, Tensor] = {"table": row, "head": np.zeros((2, 2), np.float32)}
    found = []
    for sequence in range(2, 7):
        aged = store.residual(TASK, SPECS, touched, policy)
        assert isinstance(aged["table"], RowBlock)
        found.append((float(aged["table"].values[0, 0]), float(np.asarray(aged["head"])[0, 0])))
        record(store, entry(sequence))
    assert found == [(0.5, 4.0), (0.25, 2.0), (0.125, 1.0), (0.0, 0.0), (0.0, 0.0)]
    assert squared_norm({"": store.residual(TASK, SPECS, touched)["table"]}) == 3.0


def test_rows_that_no_update_touches_for_long_are_dropped(store: Store) -> None:
    other = "1" * 32
    old, new = (RowBlock(np.array([row]), np.ones((1, 3), np.float32)) for row in (4, 5))
    record(store, entry(1), {"table": old})
    store.record_update(
        replace(entry(2), task=other),
        private={},
        residual={"table": old},
        residual_updates=100,
        facts={},
        received_bytes=0,
    )
    for sequence in range(3, 120):
        record(store, entry(sequence), {"table": new} if sequence == 60 else None)
    kept = store.residual(TASK, SPECS)["table"]
    assert isinstance(kept, RowBlock)
    assert kept.rows.tolist() == [5]
    assert store.residual(other, SPECS)


@given(st.lists(st.dictionaries(st.integers(0, 20), st.integers(-2, 2), max_size=8), max_size=6))
def test_residual_rows_are_replaced_and_read_by_row(writes: list[dict[int, int]]) -> None:
    """Like a dict of rows in which zero rows are absent, whatever is written in which order."""
    store = Store(Path(":memory:"))
    expected: dict[int, int] = {}
    for sequence, write in enumerate(writes, 1):
        ids = np.array(sorted(write), np.int64)
        values = np.array([[write[i]] * 3 for i in ids], np.float32).reshape(-1, 3)
        record(store, entry(sequence), {"table": RowBlock(ids, values)})
        expected |= write
        touched = {"table": RowBlock(ids, values)}
        assert squared_norm(add(touched, store.residual(TASK, SPECS, touched), -1.0)) == 0.0
    kept = {row: value for row, value in expected.items() if value}
    found = store.residual(TASK, SPECS).get("table")
    assert (found is None) == (not kept)
    if isinstance(found, RowBlock):
        assert dict(zip(found.rows.tolist(), found.values[:, 0].tolist(), strict=True)) == kept
    store.close()


def test_outbox_order_and_counters(store: Store) -> None:
    for waiting in (entry(1, 10, 30.0), entry(2, 20, 10.0), entry(3, 30, 20.0)):
        record(store, waiting)
    assert (store.waiting().updates, store.waiting().size_bytes) == (3, 60)
    first = store.next_entry()
    assert first is not None
    assert first.sequence == 2
    store.sent(first, next_attempt_at=100.0)
    again = store.entry(2)
    assert again is not None
    assert (again.attempts, again.next_attempt_at) == (1, 100.0)
    store.hasten(50.0, most_attempts=0)
    assert [e.next_attempt_at for n in (1, 2, 3) if (e := store.entry(n))] == [30.0, 100.0, 20.0]
    store.settle(1, "accepted")
    store.take_back(again, {})
    counters = store.counters()
    assert counters["created"] == 3
    assert counters["sends"] == 1
    assert counters["sent_bytes"] == 20
    assert counters["accepted"] == counters["rejected"] == 1
    assert counters["received_bytes"] == 15
    assert store.waiting().updates == 1


def test_a_number_is_never_used_twice(store: Store) -> None:
    record(store, entry(1))
    with pytest.raises(StoreError):
        record(store, entry(1))
    assert store.counters()["created"] == 1


def test_a_newer_database_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="install the newer software again, or move the file"):
        Store(path)


def test_an_old_database_is_migrated_in_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.db"
    store = Store(path)
    store.add_interactions([Interaction(1, 1.0)])
    store.close()
    broken = (*MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE TABLE nonsense nonsense"))
    monkeypatch.setattr(edge_agent.database, "MIGRATIONS", broken)
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.setattr(
        edge_agent.database, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE extra (x)",))
    )
    store = Store(path)
    assert store.count_interactions() == 1
    assert store._database.execute("SELECT count(*) FROM extra").fetchone() == (0,)


def test_a_device_that_slept_since_the_first_version_keeps_its_history(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO interactions (item, at) VALUES (7, 1.5), (5, 0.5)")
    connection.execute("INSERT INTO state VALUES ('device', '\"dev-1\"')")
    connection.execute("INSERT INTO counters VALUES ('created', 5)")
    connection.execute("INSERT INTO residual_tensor VALUES (1, ?, 'head')", (TASK,))
    connection.execute("INSERT INTO residual VALUES (1, 0, ?)", (np.ones(4, "<f4").tobytes(),))
    connection.commit()
    connection.close()
    store = Store(path)
    store.claim("dev-1")
    assert store.add_interactions([Interaction(7, 1.5, {"daytime": 2})]) == 0
    assert store.add_interactions([Interaction(7, 2.5, {"daytime": 2})]) == 1
    history = store.history([ContextField("daytime", 4)])
    assert history.items.tolist() == [5, 7, 7]
    assert history.context.tolist() == [[0], [0], [2]]
    # What an old version left out counts as left out by the newest update.
    head: dict[str, Tensor] = {"head": np.zeros((2, 2), np.float32)}
    aged = store.residual(TASK, SPECS, head, CodecPolicy(residual_keep=0.5))
    assert np.asarray(aged["head"]).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    store.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"this is not SQLite at all, not even nearly" * 50)
    with pytest.raises(StoreError, match="cannot open the database"):
        Store(path)
    with pytest.raises(StoreError, match="cannot open the database"):
        Store(tmp_path / "no" / "folder")


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "agent.db"), Store(tmp_path / "agent.db")
    one.add_interactions([Interaction(1, 1.0)])
    other.add_interactions([Interaction(2, 2.0)])
    assert one.count_interactions() == other.count_interactions() == 2
