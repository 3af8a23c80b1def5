"""A broker, a database, an aggregator and a load, each a real process."""

import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_sims.bench.databases import database_settings
from device_sims.bench.load import USERS, Load, let_in
from device_sims.brokers import MosquittoBroker
from device_sims.service import USER, AggregatorProcess
from export import RECOMMENDERS, build_bundle
from wire.bundle import Bundle
from wire.policy import TrainingPolicy

__all__ = ["Site", "open_site"]

PASSWORD = "of-the-load"
POLL_S, MERGE_DEADLINE_S = 0.05, 120.0


@dataclass(frozen=True, slots=True)
class Site:
    """What runs.

    Attributes:
        broker: which the load may use.
        bundle: of the one task.
        database: URL of the ledger.
        blobs: folder of the blobs.
        aggregator: the service.
    """

    broker: MosquittoBroker
    bundle: Bundle
    database: str
    blobs: Path
    aggregator: AggregatorProcess

    def load(self, updates: int, *, rate: float | None = None, window: int = 2_000) -> Load:
        """A load of devices that never sent before; see ``Load``."""
        return Load(
            broker=self.broker.url,
            password=PASSWORD,
            bundle=self.bundle.root,
            fleet=secrets.token_hex(4),
            updates=updates,
            rate=rate,
            window=window,
        )

    def wait_until_merged(self, buffer_size: int) -> None:
        """Until no buffer is full.

        Raises:
            TimeoutError: for two minutes one was.
        """
        deadline = time.monotonic() + MERGE_DEADLINE_S
        while self.summary()["updates"]["pending"] >= buffer_size:
            if time.monotonic() > deadline:
                raise TimeoutError("what was accepted is not merged in time")
            time.sleep(POLL_S)

    def summary(self) -> Any:
        """What the API says of the task."""
        return self.aggregator.client.get(f"/v1/tasks/{self.bundle.task}/summary")


@contextmanager
def open_site(kind: str, *, items: int, width: int, settings: Mapping[str, Any]) -> Iterator[Site]:
    """Start everything, and stop it after.

    Args:
        kind: of the database, see ``databases``.
        items: rows of the table.
        width: of a row.
        settings: further ones of the aggregator.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle = build_bundle(
            RECOMMENDERS["mf"](items=items, dimension=width),
            out=root / "bundle",
            training=TrainingPolicy(interval_s=0.0),
        )
        passwords = {USER: "of-the-aggregator", **dict.fromkeys(USERS, PASSWORD)}
        broker = stack.enter_context(MosquittoBroker(root / "broker", passwords))
        let_in(broker, root / "broker")
        data = root / "aggregator"
        database = stack.enter_context(database_settings(kind, data))
        aggregator = stack.enter_context(
            AggregatorProcess(
                data,
                broker=broker.url,
                bundle=bundle.root,
                password=passwords[USER],
                settings={"database": database, **settings},
            )
        )
        yield Site(broker, bundle, database, data / "blobs", aggregator)
