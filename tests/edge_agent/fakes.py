"""Stand-ins for clock, network and download in the tests of the agent's decisions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, BrokerConfig, OutboxLimits
from edge_agent.downloads import Offers, Patch
from edge_agent.errors import PermanentDownloadError
from edge_agent.interactions import Interaction
from edge_agent.runtimes import Runtime, open_runtime
from edge_agent.store import Store
from tests.edge_agent.tiny_task import TinyTask
from wire import topics
from wire.codec import decode_delta
from wire.delta import Delta, FloatArray
from wire.messages import Announcement, Outcome, Receipt, Refusal, Update

__all__ = ["Clock", "Device", "MemorySource", "Wire", "config_for"]


@dataclass
class Clock:
    """Stands still until it is told to go on."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Wire:
    """Keeps what was published; ``before`` may raise to stop a message."""

    published: list[tuple[str, bytes, bool]] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.before()
        self.published.append((topic, payload, retain))

    @property
    def updates(self) -> list[Update]:
        return [
            Update.decode(payload) for topic, payload, _ in self.published if "updates" in topic
        ]


class MemorySource:
    """Serves a task's blobs from memory, through real files."""

    def __init__(self, root: Path, *tasks: TinyTask) -> None:
        self._root, self._tasks = root, {task.task: task for task in tasks}
        self.fail_with: Exception | None = None
        self.asked: list[str] = []
        root.mkdir(parents=True, exist_ok=True)

    def manifest(self, task: str) -> bytes:
        self._ask("manifest")
        return self._tasks[task].raw

    def file(self, sha256: str, size_bytes: int) -> Path:
        del size_bytes
        path = self._root / sha256
        if not path.exists():
            self._ask(sha256)
            found = [t.blobs[sha256] for t in self._tasks.values() if sha256 in t.blobs]
            if not found:
                raise PermanentDownloadError(f"no blob {sha256}")
            path.write_bytes(found[0])
        return path

    def snapshot(
        self, sha256: str, size_bytes: int, make: Callable[[Path], None] | None = None
    ) -> Path:
        assert make is None
        return self.file(sha256, size_bytes)

    def held(self, sha256: str) -> Path | None:
        path = self._root / sha256
        return path if path.exists() else None

    def patches(self, task: str, version: int, base: int | None) -> Offers:
        del task, version, base
        self._ask("patches")
        return Offers([], 0)

    def patch(self, patch: Patch) -> bytes:
        raise AssertionError(patch)

    def rows(self, task: str, version: int, wanted: bytes, most_bytes: int) -> bytes:
        raise AssertionError(task, version, wanted, most_bytes)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.fail_with is not None:
            raise self.fail_with


def config_for(
    root: Path,
    *,
    device: str = "dev-1",
    task: str | None = None,
    holdout: bool = True,
    outbox: OutboxLimits | None = None,
) -> AgentConfig:
    return AgentConfig(
        device=device,
        state_dir=root,
        aggregator="http://localhost:1",
        broker=BrokerConfig(host="localhost", port=1),
        task=task,
        holdout=holdout,
        durability="normal",
        outbox=outbox or OutboxLimits(),
    )


RUNTIME: Runtime = open_runtime("onnx")


class Device:
    """An agent on fakes, which can be killed and started again on the same database."""

    def __init__(
        self,
        root: Path,
        task: TinyTask,
        *,
        config: AgentConfig | None = None,
        seed: int = 1,
        runtime: Runtime = RUNTIME,
    ) -> None:
        self.root, self.task = root, task
        self.config = config or config_for(root)
        self.clock, self.wire = Clock(), Wire()
        self.source = MemorySource(root / "blobs", task)
        self.runtime = runtime
        self._seed = seed
        self.start()

    def start(self) -> None:
        """Start a process: everything that was only in memory is gone."""
        self._seed += 1
        self.store = Store(self.root / "agent.db", durability="normal")
        self.agent = Agent(
            self.config,
            store=self.store,
            source=self.source,
            runtime=self.runtime,
            transport=self.wire,
            clock=self.clock,
            rng=np.random.default_rng(self._seed),
        )

    def restart(self) -> None:
        self.store.close()
        self.start()

    def log(self, *items: int) -> None:
        for item in items:
            self.clock.now += 1.0
            self.store.add_interactions([Interaction(item, self.clock.now)])

    def hear(self, announcement: Announcement) -> None:
        self.agent.receive(topics.announcement(announcement.task), announcement.encode())

    def answer(
        self,
        sequence: int,
        outcome: Outcome = Outcome.ACCEPTED,
        reason: Refusal | None = None,
        task: str | None = None,
    ) -> None:
        receipt = Receipt(
            task=task or self.task.task,
            sequence=sequence,
            outcome=outcome,
            version=1,
            reason=reason,
        )
        self.agent.receive(topics.receipts(self.config.device), receipt.encode())

    def answer_all(self) -> None:
        for update in self.wire.updates:
            self.answer(update.sequence)

    def ready(self, *items: int) -> None:
        """Connected, with a history and an announcement: about to train."""
        self.log(*items)
        self.agent.connected()
        self.hear(self.task.announce())

    def update(self) -> Update:
        """Make one local update, whatever the interval, and return what was published."""
        base = self.agent.begin_update(early=True)
        assert base is not None
        assert self.agent.finish_update(base) is not None
        return self.wire.updates[-1]

    def private(self) -> dict[str, FloatArray]:
        return self.store.private(self.task.task, self.task.manifest.private_parameters)

    def residual(self) -> Delta:
        return self.store.residual(self.task.task, self.task.manifest.federated)

    def decoded(self, update: Update) -> Delta:
        return decode_delta(update.payload, self.task.manifest.federated)
