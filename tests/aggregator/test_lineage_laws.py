"""Whatever way a task goes, its versions come out of the ledger, and nothing is destroyed."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.fold import Fold, FoldError
from aggregator.ledger import Exclusion
from aggregator.refolding import refold
from aggregator.retention import DAY_S, Retention
from aggregator.snapshots import encode_snapshot
from aggregator.verification import verify
from tests.aggregator.training import RULES, go_on
from tests.aggregator.workshop import ManualClock, Workshop, make_bundle, open_workshop
from wire.bundle import Bundle

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.text("abcd", min_size=1, max_size=7)),
        st.tuples(st.just("rollback"), st.integers(0, 9)),
        st.tuples(st.just("refold"), st.sampled_from("abcd")),
        st.tuples(st.just("promote"), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("days"), st.integers(1, 20)),
    ),
    min_size=3,
    max_size=12,
)
KEEPING = {
    "all": Retention(snapshot_every=4, keep_snapshots=2, keep_every=3),
    "some days": Retention(
        snapshot_every=4, keep_snapshots=1, keep_every=0, keep_payload_days=20, warn_days=5
    ),
}


class Walk:
    """A task that goes where it is told; what cannot be is refused and changes nothing."""

    def __init__(self, workshop: Workshop, bundle: Bundle, sent: int) -> None:
        self.workshop, self.bundle, self.sent = workshop, bundle, sent
        workshop.engine.start()
        workshop.engine.register(bundle)
        self.task = workshop.engine.tasks[bundle.task]

    def take(self, step: str, what: int | str) -> None:
        engine, name = self.workshop.engine, self.bundle.task
        lineages = self.workshop.ledger.lineages(name)
        before = (self.task.newest.digest, encode_snapshot(self.task.state), self.task.pending)
        try:
            if step == "send":
                go_on(self.workshop, self.bundle, str(what), first=self.sent + 1)
                self.sent += len(str(what))
            elif step == "rollback":
                engine.rollback(name, int(what))
            elif step == "refold":
                self.refold(str(what))
            elif step == "promote" and lineages:
                engine.promote(name, lineages[int(what) % len(lineages)].id)
            elif step == "days":
                self.workshop.clock.now += int(what) * DAY_S
                engine.tick()
        except FoldError:
            state = encode_snapshot(self.task.state)
            assert (self.task.newest.digest, state, self.task.pending) == before

    def refold(self, device: str) -> None:
        ledger, blobs = self.workshop.ledger, self.workshop.blobs
        without, specs = Exclusion(devices=(device,)), self.bundle.manifest.federated
        made = refold(ledger, blobs, self.bundle.task, specs, without)
        made.keep(ledger, blobs, task=self.bundle.task, at=self.workshop.clock.time())

    def check(self) -> None:
        ledger, blobs = self.workshop.ledger, self.workshop.blobs
        found = verify(ledger, blobs, self.task.record)
        assert found.differences == []
        dropped_to = ledger.compaction(self.bundle.task).dropped_to
        assert bool(found.unreachable) <= bool(dropped_to)
        newest = Fold(ledger, self.bundle.task, self.task.specs).rebuild(blobs, self.task.version)
        assert newest.digest == self.task.newest.digest
        assert encode_snapshot(newest.state) == encode_snapshot(self.task.state)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(steps=STEPS, rule=st.sampled_from(sorted(RULES)), keeping=st.sampled_from(sorted(KEEPING)))
def test_whatever_way_a_task_goes_it_comes_out(
    steps: list[tuple[str, int | str]], rule: str, keeping: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, clock, sent = Path(name), ManualClock(), 0
        bundle = make_bundle(folder / "bundle")
        lives: list[list[tuple[str, int | str]]] = [[("send", "abcabcabc")]]
        for step in steps:
            if step[0] == "restart":
                lives.append([])
            else:
                lives[-1].append(step)
        for life in lives:
            with open_workshop(
                folder / "data", rule=RULES[rule], retention=KEEPING[keeping], clock=clock
            ) as workshop:
                walk = Walk(workshop, bundle, sent)
                walk.check()
                for step in life:
                    walk.take(*step)
                walk.check()
                sent = walk.sent
