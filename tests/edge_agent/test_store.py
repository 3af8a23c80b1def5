"""The device's database: what it keeps, how it is upgraded, what it refuses."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

import edge_agent.database
from edge_agent.database import MIGRATIONS
from edge_agent.durable_state import OutboxEntry
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.store import Store
from wire.delta import RowBlock, Tensor
from wire.manifest import ContextField, ParameterSpec, Role
from wire.policy import CodecPolicy

TASK = "0" * 32
SPECS = (
    ParameterSpec("table", Role.ROWS, (100_000, 3)),
    ParameterSpec("head", Role.DENSE, (2, 2)),
    ParameterSpec("user", Role.PRIVATE, (3,)),
)


def test_state_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    user, head = np.array([1, 2, 3], np.float32), np.array([[1, 0], [0, 2]], np.float32)
    rows = RowBlock(np.array([4, 99_999]), np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    store.keep_manifest(TASK, b"{}")
    waiting = OutboxEntry(
        sequence=7,
        task=TASK,
        payload=bytes(10),
        base_version=0,
        created_at=0.0,
        attempts=0,
        next_attempt_at=0.0,
    )
    store.record_update(
        waiting,
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
    assert store.entry(7) == waiting
    assert store.private("1" * 32, SPECS) == {}
    assert store.residual("1" * 32, SPECS) == {}


def test_context_takes_no_room_where_nothing_is_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    contexts: list[dict[str, int]] = [{"weather": 4, "daytime": 0}, {}]
    store.add_interactions(Interaction(1, float(at), known) for at, known in enumerate(contexts))
    kept = store._database.execute("SELECT context FROM interactions ORDER BY id").fetchall()
    assert kept == [('{"weather":4}',), (None,)]


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
