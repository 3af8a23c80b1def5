"""Devices that sleep on the disk: nothing can tell that they did."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_sims.nature import Nature
from device_sims.scenario import Scenario
from device_sims.simulation.crowd import Crowd
from device_sims.simulation.device import Device
from device_sims.simulation.memory_store import MemoryStore
from device_sims.simulation.pages import Pages
from device_sims.simulation.pools import open_pool
from device_sims.simulation.run import _Simulation, simulate
from device_sims.simulation.training import BatchTrainer
from device_sims.simulation.workshop import Workshop
from edge_agent.durable_state import OutboxEntry
from tests.device_sims.simulation.test_simulation import CALM, STORM
from wire.delta import RowBlock
from wire.manifest import ParameterSpec, Role

TASK = "0" * 32
SPECS = (ParameterSpec("table", Role.ROWS, (100, 3)),)


def test_how_many_stay_awake_changes_no_bit(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever happens in a calm happens in a storm too.
    scenario = replace(STORM, run=replace(STORM.run, hours=0.5, evaluate_every_h=0.25))
    read = list[int]()

    class Counted(Pages):
        def read(self, number: int) -> bytes:
            read.append(number)
            return super().read(number)

    monkeypatch.setattr("device_sims.simulation.run.Pages", Counted)
    outcomes, slept = [], []
    for awake in (1, 4, 1_000):
        folder = tmp_path / str(awake)
        folder.mkdir()
        made = workshop.prepare(scenario)
        with open_pool(made.kit) as pool:
            trainer = BatchTrainer(pool)
            outcome = simulate(
                scenario, made.bundle, made.split, folder, trainer=trainer, awake=awake
            )
        outcomes.append(outcome.to_dict())
        slept.append(len(read))
        read.clear()
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert slept[0] > slept[1] > slept[2] == 0


@pytest.mark.parametrize("scenario", [CALM, STORM], ids=["calm", "storm"])
def test_to_leave_those_asleep_that_have_all_changes_no_bit(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    left, has_all = list[int](), Crowd._has_all

    def spied(self: Crowd, number: int) -> bool:
        if found := has_all(self, number):
            left.append(number)
        return found

    monkeypatch.setattr(Crowd, "_has_all", spied)
    sleeping = workshop.run(scenario).to_dict()
    assert left
    monkeypatch.setattr(Crowd, "_has_all", lambda _self, _number: False)
    assert workshop.run(scenario).to_dict() == sleeping


def test_a_page_has_nothing_that_all_devices_share(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = list[bytes]()

    class Kept(Pages):
        def write(self, number: int, page: bytes) -> None:
            pages.append(page)
            super().write(number, page)

    monkeypatch.setattr("device_sims.simulation.run.Pages", Kept)
    made = workshop.prepare(STORM)
    with open_pool(made.kit) as pool:
        simulate(STORM, made.bundle, made.split, tmp_path, trainer=BatchTrainer(pool), awake=1)
    assert any(b"Guarded" in page for page in pages)
    for page in pages:
        assert made.bundle.raw_manifest not in page
        assert b"take_back" not in page
        assert b"Breaker" not in page


def test_devices_are_made_when_they_join(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = list[float](), _Simulation._device

    def watched(self: _Simulation, number: int, nature: Nature) -> Device:
        made.append(self._now_s() - nature.joins_s)
        return make(self, number, nature)

    monkeypatch.setattr(_Simulation, "_device", watched)
    fleet = replace(CALM.fleet, new_share=1.0)
    outcome = workshop.run(replace(CALM, fleet=fleet, run=replace(CALM.run, evaluate_every_h=0.0)))
    assert outcome.audit.created > 0
    assert made == pytest.approx([0.0] * outcome.devices, abs=1e-6)


def update(store: MemoryStore, sequence: int, value: float) -> None:
    entry = OutboxEntry(
        sequence=sequence,
        task=TASK,
        payload=b"payload",
        base_version=0,
        created_at=1.5,
        attempts=0,
        next_attempt_at=2.5,
    )
    store.record_update(
        entry,
        private={"user": np.full(3, value, np.float32)},
        residual={"table": RowBlock(np.array([sequence]), np.full((1, 3), value, np.float32))},
        residual_updates=100,
        facts={"next_update_at": value},
        received_bytes=1,
    )


def test_a_backup_stays_as_it_was() -> None:
    store = MemoryStore()
    update(store, 1, 0.5)
    backup = store.copy()
    before = pickle.dumps(backup)
    update(store, 2, 0.75)
    store.settle(1, "accepted")
    store.keep_manifest(TASK, b"{}")
    assert pickle.dumps(backup) == before
    assert backup.last_sequence() == 1
    assert backup.waiting().updates == 1
    again = backup.copy()
    update(again, 3, 1.0)
    assert pickle.dumps(backup) == before


def test_pages_are_kept_by_number_and_replaced(tmp_path: Path) -> None:
    pages = Pages(tmp_path / "pages.db")
    pages.write(3, b"three")
    pages.write(70_000, bytes(100_000))
    pages.write(3, b"3")
    assert pages.read(3) == b"3"
    assert pages.read(70_000) == bytes(100_000)
    with pytest.raises(KeyError):
        pages.read(4)
    pages.close()
