"""Every ledger test runs against every database that the aggregator supports."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from aggregator.ledger import (
    DeviceStatus,
    Event,
    Intake,
    Ledger,
    NewUpdate,
    Rejection,
    Reports,
    TaskRecord,
    UpdateKey,
    VersionRecord,
    open_database,
)
from wire.messages import Refusal

TASK, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(database: Engine) -> Ledger:
    return Ledger(database)


@pytest.fixture
def reports(database: Engine) -> Reports:
    return Reports(database)


def new_update(
    device: str, sequence: int, *, base: int = 0, metrics: dict[str, float] | None = None
) -> NewUpdate:
    return NewUpdate(
        key=UpdateKey(TASK, device, sequence),
        base_version=base,
        examples=3,
        payload=f"{device}/{sequence}".encode(),
        size_bytes=100,
        metrics=metrics or {},
        received_at=1000.5 + sequence,
    )


def intake(
    *updates: NewUpdate,
    rejections: tuple[Rejection, ...] = (),
    duplicates: tuple[UpdateKey, ...] = (),
    unreadable: dict[Refusal, int] | None = None,
    statuses: tuple[DeviceStatus, ...] = (),
    events: tuple[Event, ...] = (),
) -> Intake:
    return Intake(
        at=1000.0,
        known_tasks=frozenset([TASK]),
        updates=updates,
        rejections=rejections,
        duplicates=duplicates,
        unreadable=unreadable,
        statuses=statuses,
        events=events,
    )


def version(number: int, *, updates: int = 0) -> VersionRecord:
    return VersionRecord(
        task=TASK,
        version=number,
        digest=f"{number:064x}",
        sha256=f"{number:064x}",
        size_bytes=10,
        rule={"buffer_size": 2},
        created_at=1000.0 + number,
        updates=updates,
    )


@pytest.fixture
def task(ledger: Ledger) -> TaskRecord:
    record = TaskRecord(
        task=TASK,
        manifest=b"{}",
        created_at=1.0,
        paused=False,
        training={"epochs": 1},
        codec={"bits": 4},
        rule={"buffer_size": 2},
    )
    ledger.create_task(
        record, version(0), Event(at=1.0, kind="task-created", detail="x", task=TASK)
    )
    return record
