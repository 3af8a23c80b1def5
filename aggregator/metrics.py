"""What the service counts and times about itself, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Instruments"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Instruments:
    """The metrics of one service, in a registry of their own.

    Counters start at zero with the process; the ledger has the totals.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.updates = Counter(
            "rivulet_updates", "Updates answered", ["outcome"], registry=self.registry
        )
        self.refusals = Counter(
            "rivulet_refusals", "Messages refused", ["reason"], registry=self.registry
        )
        self.received_bytes = Counter(
            "rivulet_received_bytes", "Bytes of update messages", registry=self.registry
        )
        self.merges = Counter("rivulet_merges", "Versions made", ["task"], registry=self.registry)
        self.version = Gauge("rivulet_version", "Newest version", ["task"], registry=self.registry)
        self.norm_bound = Gauge(
            "rivulet_norm_bound",
            "Largest norm that an update may have at present",
            ["task"],
            registry=self.registry,
        )
        self.pending = Gauge(
            "rivulet_pending_updates",
            "Accepted updates that wait for a merge",
            ["task"],
            registry=self.registry,
        )
        self.commit_s = Histogram(
            "rivulet_commit_seconds",
            "Time to make a batch of updates durable",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.merge_s = Histogram(
            "rivulet_merge_seconds",
            "Time to merge full buffers and to record their versions together",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "rivulet_batch_messages",
            "Messages made durable together",
            buckets=BATCHES,
            registry=self.registry,
        )
        self.failures = Counter(
            "rivulet_failures", "Work that will be tried again", ["what"], registry=self.registry
        )
        self.connected = Gauge(
            "rivulet_broker_connected", "1 while the broker is connected", registry=self.registry
        )
        self.merging = Gauge(
            "rivulet_merging", "1 while this process merges", registry=self.registry
        )
        self.mailbox = Gauge(
            "rivulet_mailbox_messages",
            "Messages that wait for the engine",
            registry=self.registry,
        )
