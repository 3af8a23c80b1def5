"""One suite over each store that an agent may have, and the law that all of them are one."""

from collections.abc import Callable
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.simulation.memory_store import MemoryStore
from edge_agent.durable_state import DurableState, OutboxEntry
from edge_agent.errors import StoreError
from edge_agent.interactions import Interaction
from edge_agent.store import Store
from wire.delta import RowBlock, Tensor, add, squared_norm
from wire.manifest import ContextField, ParameterSpec, Role
from wire.policy import CodecPolicy

STORES: dict[str, Callable[[Path], DurableState]] = {
    "sqlite": Store,
    "memory": lambda _path: MemoryStore(),
}
TASK = "0" * 32
SPECS = (
    ParameterSpec("table", Role.ROWS, (100_000, 3)),
    ParameterSpec("head", Role.DENSE, (2, 2)),
    ParameterSpec("user", Role.PRIVATE, (3,)),
)
FIELDS = (ContextField("daytime", 4), ContextField("weather", 9))
POLICY = CodecPolicy(residual_keep=0.5, residual_updates=20)


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


def record(
    store: DurableState,
    waiting: OutboxEntry,
    residual: dict[str, Tensor] | None = None,
    *,
    residual_updates: int = 100,
) -> None:
    store.record_update(
        waiting,
        private={},
        residual=residual or {},
        residual_updates=residual_updates,
        facts={"evaluation": None},
        received_bytes=5,
    )


@pytest.fixture(params=[*STORES.values()], ids=[*STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DurableState:
    made: DurableState = request.param(tmp_path / "agent.db")
    return made


def test_interactions_are_ordered_by_time_then_arrival_and_kept_once(store: DurableState) -> None:
    assert len(store.history()) == 0
    assert store.add_interactions(starmap(Interaction, [(5, 2.0), (9, 1.0), (7, 2.0)])) == 3
    assert store.add_interactions([Interaction(9, 1.0), Interaction(8, 3.0)]) == 1
    history = store.history()
    assert history.items.tolist() == [9, 5, 7, 8]
    assert history.items.dtype == np.int64
    assert history.context.shape == (4, 0)
    assert store.count_interactions() == 4


def test_context_comes_back_by_field_and_is_0_where_it_is_not_known(store: DurableState) -> None:
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


def test_a_residual_ages_while_it_waits(store: DurableState) -> None:
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


def test_rows_that_no_update_touches_for_long_are_dropped(store: DurableState) -> None:
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


@pytest.mark.parametrize(("most", "kept"), [(15, True), (14, False)])
def test_a_row_may_wait_for_so_many_updates_and_no_more(
    store: DurableState, most: int, kept: bool
) -> None:
    record(store, entry(1), {"table": RowBlock(np.array([4]), np.ones((1, 3), np.float32))})
    for sequence in range(2, 17):
        record(store, entry(sequence), residual_updates=most)
    assert ("table" in store.residual(TASK, SPECS)) == kept


def test_outbox_order_and_counters(store: DurableState) -> None:
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


def test_a_number_is_never_used_twice(store: DurableState) -> None:
    record(store, entry(1))
    with pytest.raises(StoreError):
        record(store, entry(1))
    assert store.counters()["created"] == 1


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
@given(st.lists(st.dictionaries(st.integers(0, 20), st.integers(-2, 2), max_size=8), max_size=6))
def test_residual_rows_are_replaced_and_read_by_row(
    make: Callable[[Path], DurableState], writes: list[dict[int, int]]
) -> None:
    """Like a dict of rows in which zero rows are absent, whatever is written in which order."""
    store = make(Path(":memory:"))
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


def test_facts_are_values_and_an_owner_is_for_ever(store: DurableState) -> None:
    assert store.get("evaluation") is None
    fact = {"hr_at_10": 1.0, "tried": [1, 2]}
    store.put("evaluation", fact)
    fact["hr_at_10"] = 0.0
    assert store.get("evaluation") == {"hr_at_10": 1.0, "tried": [1, 2]}
    store.claim("dev-1")
    store.claim("dev-1")
    with pytest.raises(StoreError, match="belongs to the device 'dev-1', not to 'dev-2'"):
        store.claim("dev-2")


def test_an_update_changes_everything_at_once(store: DurableState) -> None:
    user, head = np.array([1, 2, 3], np.float32), np.array([[1, 0], [0, 2]], np.float32)
    store.keep_manifest(TASK, b"{}")
    assert (store.manifest(TASK), store.manifest("1" * 32)) == (b"{}", None)
    store.record_update(
        replace(entry(7), attempts=1),
        private={"user": user},
        residual={"head": head},
        residual_updates=100,
        facts={"next_update_at": 5.5},
        received_bytes=11,
    )
    assert (store.last_sequence(), store.get("next_update_at")) == (7, 5.5)
    np.testing.assert_array_equal(store.private(TASK, SPECS)["user"], user)
    np.testing.assert_array_equal(store.residual(TASK, SPECS)["head"], head)
    counted = {name: count for name, count in store.counters().items() if count}
    assert counted == {"created": 1, "sends": 1, "sent_bytes": 10, "received_bytes": 11}
    store.postpone(7, 99.0)
    postponed = store.next_entry()
    assert postponed is not None
    assert postponed == replace(entry(7), attempts=1, next_attempt_at=99.0)
    store.postpone(8, 1.0)
    store.settle(7, "duplicate")
    assert (store.next_entry(), store.entry(7), store.counters()["duplicate"]) == (None, None, 1)


numbers = st.integers(1, 4)
times = st.sampled_from([0.0, 1.0, 2.5, 7.0])
deltas = st.fixed_dictionaries(
    {},
    optional={
        "table": st.dictionaries(st.integers(0, 6), st.integers(-1, 1), max_size=4).map(
            lambda rows: RowBlock(
                np.array(sorted(rows), np.int64),
                np.array([[rows[i]] * 3 for i in sorted(rows)], np.float32).reshape(-1, 3),
            )
        ),
        "head": st.integers(-1, 1).map(lambda value: np.full((2, 2), value, np.float32)),
    },
)
contexts = st.dictionaries(st.sampled_from(["daytime", "weather"]), st.integers(0, 3))
operations = st.one_of(
    st.tuples(st.just("record"), numbers, times, deltas),
    st.tuples(st.just("add"), st.lists(st.builds(Interaction, numbers, times, contexts))),
    st.tuples(st.just("sent"), numbers, times),
    st.tuples(st.just("postpone"), numbers, times),
    st.tuples(st.just("hasten"), times, st.none() | st.integers(0, 2)),
    st.tuples(st.just("settle"), numbers, st.sampled_from(["accepted", "duplicate"])),
    st.tuples(st.just("take_back"), numbers, deltas),
    # So that rows are pruned.
    st.tuples(st.just("rest"), st.integers(1, 30)),
)


@given(st.lists(operations, max_size=12), deltas)
def test_all_stores_are_one(steps: list[tuple[Any, ...]], touched: dict[str, Tensor]) -> None:
    """Whatever is done to them in whichever order, every question has the same answer."""
    stores = [make(Path(":memory:")) for make in STORES.values()]
    for step in steps:
        done = [carry_out(store, *step) for store in stores]
        assert done[0] == done[1]
    answers = [everything(store, touched) for store in stores]
    for store in stores:
        store.close()
    np.testing.assert_equal(answers[1], answers[0])


def carry_out(store: DurableState, what: str, *how: Any) -> object:
    if what == "rest":
        for sequence in range(100, 100 + how[0]):
            record(store, entry(sequence), residual_updates=8)
            store.settle(sequence, "accepted")
    elif what == "record":
        sequence, due, residual = how
        try:
            record(store, replace(entry(sequence, due=due), attempts=sequence % 2), residual)
        except StoreError:
            return "refused"
    elif what == "add":
        return store.add_interactions(how[0])
    elif what == "hasten":
        store.hasten(how[0], most_attempts=how[1])
    elif what == "sent":
        waiting = store.entry(how[0])
        if waiting is not None:
            store.sent(waiting, next_attempt_at=how[1])
    elif what == "take_back":
        store.take_back(entry(how[0]), how[1])
    else:
        getattr(store, what)(*how)
    return None


def everything(store: DurableState, touched: dict[str, Tensor]) -> object:
    history = store.history(FIELDS)
    residuals = (
        store.residual(TASK, SPECS),
        store.residual(TASK, SPECS, touched),
        store.residual(TASK, SPECS, touched, POLICY),
    )
    return {
        "counters": store.counters(),
        "history": (history.items, history.context, store.count_interactions()),
        "outbox": [store.entry(sequence) for sequence in range(5)],
        "first": store.next_entry(),
        "waiting": store.waiting(),
        "last": store.last_sequence(),
        "residuals": [[*map(plain, residual.items())] for residual in residuals],
    }


def plain(named: tuple[str, Tensor]) -> object:
    name, tensor = named
    return (name, tensor.rows, tensor.values) if isinstance(tensor, RowBlock) else (name, tensor)
