"""The other side, as small as it can be: announces a task, serves its blobs, answers updates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.edge_agent.blob_server import BlobServer, serve_blobs
from tests.edge_agent.mosquitto import Mosquitto
from tests.edge_agent.running import Watcher
from tests.edge_agent.tiny_task import TinyTask
from wire import topics
from wire.messages import Announcement, Outcome, Receipt, Status, Update

__all__ = ["Aggregator", "aggregator"]


class Aggregator:
    """What tests ask of it.

    Attributes:
        updates: every delivery, in order, with the device it came from.
        outcome: the answer to an update; None stays silent.
    """

    def __init__(self, task: TinyTask, broker: Mosquitto, web: BlobServer) -> None:
        self.task, self.broker, self.web = task, broker, web
        self.updates: list[tuple[str, Update]] = []
        self.outcome: Callable[[Update], Outcome | None] = lambda _update: Outcome.ACCEPTED
        self.watcher = Watcher(broker.port, on_message=self._heard)

    def announce(self, announcement: Announcement) -> None:
        self.web.add_task(self.task)
        self.watcher.publish(
            topics.announcement(announcement.task), announcement.encode(), retain=True
        )

    def statuses(self, device: str = "dev-1") -> list[str]:
        heard = self.watcher.heard(topics.status(device))
        return [Status.decode(payload).state.value for payload in heard]

    def sequences(self) -> list[int]:
        return [update.sequence for _, update in self.updates]

    def _heard(self, topic: str, payload: bytes) -> None:
        if not topic.endswith("/updates"):
            return
        device, update = topics.device_of(topic), Update.decode(payload)
        self.updates.append((device, update))
        outcome = self.outcome(update)
        if outcome is not None:
            receipt = Receipt(
                task=update.task, sequence=update.sequence, outcome=outcome, version=0
            )
            self.watcher.send(topics.receipts(device), receipt.encode())


@contextmanager
def aggregator(task: TinyTask, broker: Mosquitto) -> Iterator[Aggregator]:
    """One aggregator on a running broker, until the end of the block."""
    with serve_blobs() as web:
        stub = Aggregator(task, broker, web)
        try:
            yield stub
        finally:
            stub.watcher.close()
