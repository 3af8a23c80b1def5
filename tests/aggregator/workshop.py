"""Small real bundles, updates and engines for the aggregator's tests."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from aggregator.admission import AdmissionPolicy
from aggregator.blobs import Blobs, FolderBlobs
from aggregator.engine import Engine
from aggregator.ledger import Ledger, Reports, open_database
from aggregator.merging import Rule
from aggregator.metrics import Instruments
from aggregator.patches import Patches
from aggregator.reception import Inbound
from aggregator.retention import Retention
from wire import topics
from wire.bundle import MANIFEST_FILE, Bundle, read_bundle
from wire.codec import encode_delta
from wire.delta import RowBlock, Tensor
from wire.manifest import BatchKind, FileEntry, Manifest, ParameterSpec, Role
from wire.messages import Announcement, Metric, Receipt, Refusal, Update
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = [
    "ManualClock",
    "Outbox",
    "Workshop",
    "make_bundle",
    "make_delta",
    "make_update",
    "open_workshop",
]

RAW = CodecPolicy(mode=CodecMode.RAW)


def make_bundle(
    root: Path,
    *,
    name: str = "tiny",
    items: int = 12,
    width: int = 4,
    row_requests: bool = False,
    interval_s: float = 0.0,
) -> Bundle:
    """A bundle of a table, a dense head and a private vector; its programs are not programs.

    Without an interval, a device may send as fast as it likes.
    """
    rng = np.random.default_rng(0)
    initial = {
        "item": rng.normal(size=(items, width)).astype(np.float32),
        "head": np.zeros((width,), np.float32),
    }
    contents = {
        "programs/update.onnx": b"update program of " + name.encode(),
        "programs/scorer.onnx": b"scorer program",
        "parameters.safetensors": save(initial),
        "private.safetensors": save({"user": np.zeros((width,), np.float32)}),
    }
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    manifest = Manifest(
        name=name,
        recommender="mf",
        items=items,
        batch=BatchKind.POINTWISE,
        parameters=(
            ParameterSpec("item", Role.ROWS, (items, width)),
            ParameterSpec("head", Role.DENSE, (width,)),
            ParameterSpec("user", Role.PRIVATE, (width,)),
        ),
        programs={"onnx": {"update": "programs/update.onnx", "scorer": "programs/scorer.onnx"}},
        initial="parameters.safetensors",
        private="private.safetensors",
        frozen="private.safetensors",
        files=tuple(
            FileEntry(path, hashlib.sha256(content).hexdigest(), len(content))
            for path, content in contents.items()
        ),
        row_requests=row_requests,
        training=TrainingPolicy(interval_s=interval_s),
        codec=CodecPolicy(),
    )
    (root / MANIFEST_FILE).write_bytes(manifest.to_json())
    return read_bundle(root)


def make_delta(bundle: Bundle, seed: int, *, rows: int = 3) -> dict[str, Tensor]:
    """A random delta that touches a few rows and the head."""
    rng = np.random.default_rng(seed)
    item, head = bundle.manifest.federated
    touched = np.sort(rng.choice(item.shape[0], rows, replace=False)).astype(np.int64)
    values = rng.normal(size=(rows, item.shape[1])).astype(np.float32)
    return {
        item.name: RowBlock(touched, values),
        head.name: rng.normal(size=head.shape).astype(np.float32),
    }


def make_update(
    bundle: Bundle,
    sequence: int,
    *,
    seed: int | None = None,
    base: int = 0,
    delta: Mapping[str, Tensor] | None = None,
    metrics: Mapping[Metric, float] | None = None,
    codec: CodecPolicy = RAW,
) -> Update:
    """An update, with a random delta unless one is given."""
    if delta is None:
        delta = make_delta(bundle, sequence if seed is None else seed)
    return Update(
        task=bundle.task,
        sequence=sequence,
        base_version=base,
        examples=10,
        payload=encode_delta(delta, bundle.manifest.federated, codec),
        metrics=metrics or {},
    )


class ManualClock:
    """Both clocks of the aggregator; they stand still until they are moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Outbox:
    """Keeps what the engine publishes and what it acknowledges."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.acknowledged: list[Inbound] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.messages.append((topic, payload, retain))

    def inbound(self, device: str, payload: bytes, *, topic: str | None = None) -> Inbound:
        message: Inbound

        def acknowledge() -> None:
            self.acknowledged.append(message)

        message = Inbound(topic or topics.updates(device), payload, acknowledge)
        return message

    def receipts(self, device: str) -> list[Receipt]:
        topic = topics.receipts(device)
        return [Receipt.decode(payload) for to, payload, _ in self.messages if to == topic]

    def announcements(self, task: str) -> list[Announcement]:
        topic = topics.announcement(task)
        return [
            Announcement.decode(payload)
            for to, payload, retain in self.messages
            if to == topic and retain
        ]


class Workshop:
    """An engine over a folder, with everything around it in reach."""

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        reports: Reports,
        blobs: Blobs,
        patches: Patches,
        outbox: Outbox,
        clock: ManualClock,
        instruments: Instruments,
    ) -> None:
        self.instruments = instruments
        self.engine, self.ledger, self.reports = engine, ledger, reports
        self.blobs, self.patches = blobs, patches
        self.outbox, self.clock = outbox, clock

    def send(self, device: str, *updates: Update) -> None:
        """Hand the engine one batch."""
        self.deliver(*((device, update.encode()) for update in updates))

    def deliver(self, *messages: tuple[str, bytes]) -> None:
        """Hand the engine one batch of any bytes, as (device, payload)."""
        self.engine.ingest([self.outbox.inbound(device, payload) for device, payload in messages])

    def refused(self, reason: Refusal) -> float:
        """What the counter of a refusal says."""
        labels = {"reason": reason.slug}
        return self.instruments.registry.get_sample_value("rivulet_refusals_total", labels) or 0.0


@contextmanager
def open_workshop(
    data: Path,
    *,
    rule: Rule | None = None,
    admission: AdmissionPolicy | None = None,
    retention: Retention | None = None,
    clock: ManualClock | None = None,
    enrolled: Callable[[], Collection[str] | None] = lambda: None,
    announce_interval_s: float = 0.0,
    blobs: Blobs | None = None,
) -> Iterator[Workshop]:
    """An engine that is not started yet; leaving the block closes its database."""
    data.mkdir(exist_ok=True)
    database = open_database(f"sqlite:///{data / 'ledger.db'}")
    ledger, reports, outbox = Ledger(database), Reports(database), Outbox()
    blobs = blobs or FolderBlobs(data / "blobs")
    clock, instruments = clock or ManualClock(), Instruments()
    engine = Engine(
        ledger=ledger,
        blobs=blobs,
        publish=outbox.publish,
        clock=clock,
        instruments=instruments,
        admission=admission or AdmissionPolicy(),
        retention=retention or Retention(),
        rule=rule or Rule(buffer_size=3),
        enrolled=enrolled,
        announce_interval_s=announce_interval_s,
    )
    try:
        yield Workshop(
            engine=engine,
            ledger=ledger,
            reports=reports,
            blobs=blobs,
            patches=Patches(data / "patches", reports=reports, blobs=blobs),
            outbox=outbox,
            clock=clock,
            instruments=instruments,
        )
    finally:
        database.dispose()
