"""What a scenario says about devices, data, disks, broker and enemies happens in a simulation."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.admission import AdmissionPolicy
from aggregator.engine import Engine
from aggregator.reception import Inbound
from device_sims.nature import Conditions, Population
from device_sims.scenario import Faults, Scenario
from device_sims.simulation import run as run_module
from device_sims.simulation.assess import groups
from device_sims.simulation.mishaps import Mishaps
from device_sims.simulation.network import Network
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.replay import Replay
from device_sims.simulation.virtual_time import START, VirtualTime
from device_sims.simulation.workshop import Workshop
from wire import topics
from wire.delta import Delta, Tensor, add

LINK = Conditions(update_s=1.0, latency_s=1.0, up_bytes_s=1e6, down_bytes_s=1e6)


def scenario(**tables: Mapping[str, Any]) -> Scenario:
    start: dict[str, dict[str, Any]] = {
        "task": {"training": {"interval_s": 300.0}},
        "data": {"users": 12},
        "aggregation": {"buffer_size": 4},
        "run": {"hours": 1.0, "evaluate_every_h": 0.0},
    }
    document = {key: {**start.get(key, {}), **tables.get(key, {})} for key in {*start, *tables}}
    return Scenario.from_dict(document, name="world")


@pytest.fixture(scope="module")
def plain(workshop: Workshop) -> Outcome:
    return workshop.run(scenario())


# Energy, bytes and groups


def test_energy_is_what_the_model_makes_of_training_and_traffic(workshop: Workshop) -> None:
    fleet = {"update_s": 10, "update_sigma": 0, "offline_s": 0, "train_w": 3, "up_j_mb": 5e5}
    outcome = workshop.run(scenario(fleet=fleet))
    end = outcome.quality[-1]
    assert end.updates > 50
    radio = 0.5 * end.bytes_up + 1.1e-6 * end.bytes_down
    assert end.energy_j == pytest.approx(3 * 10 * end.updates + radio, rel=1e-9)
    assert end.bytes_down > end.bytes_up > 0


def test_slow_devices_take_less_part_and_groups_add_up(workshop: Workshop) -> None:
    classes = [
        {"name": "hub", "update_s": 5.0, "update_sigma": 0.1},
        {"name": "phone", "update_s": 1_000.0, "update_sigma": 0.1},
    ]
    outcome = workshop.run(scenario(fleet={"classes": classes}))
    groups = outcome.groups
    speeds, activities = ("fast", "middle", "slow"), ("light", "medium", "heavy")
    assert set(groups) == {*speeds, *activities, "hub", "phone"}
    assert [groups[name].devices for name in (*speeds, *activities)] == [4] * 6
    for names in (speeds, activities, ("hub", "phone")):
        assert sum(groups[name].updates for name in names) == outcome.quality[-1].updates
        assert sum(groups[name].devices for name in names) == outcome.devices
    mean = {name: group.updates / group.devices for name, group in groups.items()}
    assert mean["hub"] > 2 * mean["phone"]
    assert mean["fast"] > mean["slow"]
    whole = sum(groups[n].devices * groups[n].hr_at_10 for n in ("fast", "middle", "slow"))
    assert whole / outcome.devices == pytest.approx(outcome.quality[-1].hr_at_10)


def test_light_users_are_those_with_the_fewest_interactions() -> None:
    population = Population(scenario().fleet, hours=1.0, seed=0)
    natures = [population.nature(number) for number in range(6)]
    lengths = np.array([7, 1, 30, 2, 9, 20])
    parts = groups(natures, lengths, dict(enumerate(lengths.tolist())), None)
    assert [parts[name].updates for name in ("light", "medium", "heavy")] == [3, 16, 50]


def test_what_is_made_after_the_end_is_answered_however_late(workshop: Workshop) -> None:
    # Made ten minutes after the end, but for some seconds, and answered half a minute later.
    fleet = {"update_s": 700.0, "update_sigma": 0.0, "offline_s": 0.0}
    run = {"hours": 115 / 3600}
    outcome = workshop.run(scenario(fleet=fleet, service={"together_s": 30.0}, run=run))
    assert outcome.audit.created == outcome.audit.accepted == outcome.devices
    assert outcome.audit.broken == []


def test_a_class_that_is_called_like_a_third_takes_nothing_from_it() -> None:
    fleet = {"classes": [{"name": "slow"}, {"name": "hub"}]}
    drawn = Population(scenario(fleet=fleet).fleet, hours=1.0, seed=0)
    natures = [drawn.nature(number) for number in range(30)]
    parts = groups(natures, np.arange(30), {}, None)
    thirds = ("fast", "middle", "slow", "light", "medium", "heavy")
    assert [parts[name].devices for name in thirds] == [10] * 6
    classes = {name: sum(n.kind == name for n in natures) for name in ("slow", "hub")}
    assert {"slow": parts["slow (class)"].devices, "hub": parts["hub"].devices} == classes


# Coming and going


def test_devices_train_only_when_their_trace_lets_them(
    workshop: Workshop, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, float]] = []
    original = run_module._Simulation._sent

    def noting(self: Any, number: int, sent: Any) -> None:
        made.append((number, self._now_s()))
        original(self, number, sent)

    monkeypatch.setattr(run_module._Simulation, "_sent", noting)
    outcome = workshop.run(scenario(fleet={"trace": str(trace)}, run={"hours": 2.0}))
    assert outcome.audit.broken == []
    assert {number % 2 for number, _ in made} == {0, 1}
    # One that begins within a stretch may end a little after it.
    for number, at_s in made:
        allowed = [(0, 1_804)] if number % 2 == 0 else [(900, 1_300), (2_000, 3_620)]
        assert any(from_s <= at_s <= to_s for from_s, to_s in allowed)


def test_new_devices_come_and_others_leave_with_what_waits(
    workshop: Workshop, plain: Outcome
) -> None:
    fleet = {"new_share": 0.5, "new_within_h": 1.0, "stay_h": 0.3}
    outcome = workshop.run(scenario(fleet=fleet))
    assert outcome.audit.broken == []
    assert 0 < outcome.audit.created < 0.7 * plain.audit.created


# Data that come over time


def test_a_replay_hands_out_every_interaction_of_the_run_once(workshop: Workshop) -> None:
    split = workshop.prepare(scenario()).split
    replay = Replay(split, history=0.4, future=0.2, duration_s=3_600.0)
    counts, total = Counter[str](), 3 * split.user_count + len(split.train.items) - split.user_count
    for user in range(split.user_count):
        own = list(split.train.times_of(user))
        own += [split.validation_times[user], split.test_times[user]]
        history, arrivals = replay.history(user), list(replay.arrivals(user))
        come = [event for _, events in arrivals for event in events]
        assert [event.at for event in (*history, *come)] == own[: len(history) + len(come)]
        times = [at_s for at_s, _ in arrivals]
        assert times == sorted(times)
        assert all(0.0 < at_s <= 3_600.0 for at_s in times)
        counts["history"] += len(history)
        counts["come"] += len(come)
    assert counts["history"] / total == pytest.approx(0.4, abs=0.01)
    assert counts["come"] / total == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("now_s", [0.0, 1_800.0, 3_600.0, 9_999.0])
def test_what_is_ranked_is_what_each_user_does_next(workshop: Workshop, now_s: float) -> None:
    split = workshop.prepare(scenario()).split
    replay = Replay(split, history=0.4, future=0.2, duration_s=3_600.0)
    at_moment, users = replay.split_at(now_s)
    assert 0 < len(users) <= split.user_count
    for user in users.tolist():
        known = [event.item for event in replay.history(user)]
        for at_s, events in replay.arrivals(user):
            if at_s <= now_s:
                known += [event.item for event in events]
        seen = [*at_moment.train.items_of(user).tolist(), int(at_moment.validation[user])]
        # A device may be told of what happens within a minute together, at the end of it.
        assert seen[: len(known)] == known
        assert len(seen) - len(known) <= 3
        assert at_moment.test_times[user] > at_moment.validation_times[user]
        assert int(at_moment.test[user]) not in seen


def test_a_fleet_learns_from_what_comes(workshop: Workshop) -> None:
    world = scenario(
        data={"users": 12, "replay": True}, run={"hours": 1.0, "evaluate_every_h": 0.5}
    )
    outcome = workshop.run(world)
    assert outcome.audit.broken == []
    assert all(0 < m.examined <= 12 for m in outcome.quality[1:])
    assert {m.validation_ndcg_at_10 for m in outcome.quality} == {None}
    assert workshop.run(world).to_dict() == outcome.to_dict()


# Full disks and restarts of the broker


def test_full_disks_are_refused_by_name_and_nothing_is_lost(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    original = Engine.tick

    def noting(self: Engine) -> None:
        original(self)
        said.append(self.problem or "")

    monkeypatch.setattr(Engine, "tick", noting)
    faults = {"aggregator_full": 0.1, "agent_full": 0.05, "full_s": 120.0}
    outcome = workshop.run(scenario(faults=faults))
    assert outcome.faults["aggregator_full"] > 0
    assert outcome.faults["agent_full"] > 0
    assert any("storage-full" in problem for problem in said)
    assert said[-1] == ""
    assert outcome.audit.broken == []
    assert outcome.audit.accepted > 30


class Aggregator:
    """Takes messages and acknowledges them."""

    def __init__(self, network: Network) -> None:
        self.batches: list[list[bytes]] = []
        network.to_aggregator = self.take

    def take(self, messages: list[Inbound]) -> None:
        self.batches.append([message.payload for message in messages])
        for message in messages:
            message.acknowledge()


def test_a_broker_that_restarts_loses_what_is_under_way_and_delivers_the_last_again() -> None:
    time = VirtualTime()
    mishaps = Mishaps(Faults(), np.random.default_rng(0), Counter())
    network = Network(time, mishaps, 0.05)
    aggregator, got = Aggregator(network), list[bytes]()
    announcement, update = topics.announcement("0" * 32), topics.updates("device-00000")
    network.publish(announcement, b"version", retain=True)
    network.connect("device-00000", lambda _, payload: got.append(payload), LINK)
    network.send(update, b"first", LINK)
    time.run_until(START + 60)
    assert aggregator.batches == [[b"first"]]
    network.send(update, b"under way", LINK)
    network.publish(topics.receipts("device-00000"), b"receipt")
    network.restart(10.0)
    assert (network.down_s, network.retained) == (10.0, {})
    time.run_until(START + 120)
    assert got == []
    assert aggregator.batches == [[b"first"], [b"first"]]
    assert network.down_s == 0.0
    # Nothing that was acknowledged comes a third time.
    network.send(update, b"second", LINK)
    time.run_until(START + 180)
    assert aggregator.batches[2:] == [[b"second"]]


def test_a_fleet_lives_through_restarts_of_its_broker(workshop: Workshop) -> None:
    outcome = workshop.run(scenario(faults={"broker_restarts_h": 20.0, "restart_s": 30.0}))
    assert outcome.faults["broker_restart"] > 8
    assert outcome.audit.broken == []
    assert outcome.audit.accepted > 30


def test_another_seed_of_the_faults_leaves_the_fleet_as_it_is(workshop: Workshop) -> None:
    first = scenario(faults={"lost": 0.2})
    other = replace(first, faults=replace(first.faults, seed=1))
    outcomes = [workshop.run(one) for one in (first, other)]
    assert outcomes[0].model != outcomes[1].model
    assert {group.devices for group in outcomes[0].groups.values()} == {4}
    assert workshop.run(other).to_dict() == outcomes[1].to_dict()


# Enemies, and what holds them off

BUSY: Mapping[str, Any] = {
    "task": {"training": {"interval_s": 120.0}},
    "data": {"users": 20},
    "fleet": {"offline_s": 0},
    "run": {"hours": 0.35},
}


def test_admission_refuses_what_the_scenario_lets_it_refuse(workshop: Workshop) -> None:
    hostile = {"share": 0.3, "kind": "scale", "factor": 100.0}
    bounds = {"norm_warmup": 8, "norm_factor": 4.0}
    none = {"norm_factor": 0.0, "max_norm": 1e9}
    held_off, let_in = (
        workshop.run(scenario(**BUSY, attackers=hostile, admission=policy))
        for policy in (bounds, none)
    )
    assert held_off.refused["norm"] > 50
    assert held_off.quality[-1].hr_at_10 > let_in.quality[-1].hr_at_10 + 0.2
    assert held_off.audit.broken == let_in.audit.broken == []


def test_colluders_have_their_item_shown_and_a_cap_for_rows_holds_them_off(
    workshop: Workshop,
) -> None:
    def exposure(share: float, **rule: float) -> float:
        world = scenario(
            **BUSY,
            attackers={"share": share, "kind": "collude", "factor": 10.0},
            aggregation={"buffer_size": 10, **rule},
            admission={"norm_factor": 0.0},
        )
        found = workshop.run(world).exposure
        assert found is not None
        return found

    assert exposure(0.1) > max(exposure(0.0), exposure(0.1, row_clip=3.0)) + 0.4


def test_a_staleness_limit_refuses_slow_devices(workshop: Workshop) -> None:
    fleet = {"update_s": 100.0, "update_sigma": 2.0, "offline_s": 0}
    outcome = workshop.run(
        scenario(fleet=fleet, admission={"max_staleness": 0}, aggregation={"buffer_size": 1})
    )
    assert outcome.refused["too-stale"] > 0
    assert set(outcome.staleness) == {0}
    assert outcome.audit.broken == []


def test_the_policy_of_the_scenario_is_the_services() -> None:
    assert scenario(admission={"norm_quantile": 0.7}).admission == AdmissionPolicy(
        norm_quantile=0.7
    )


# What devices learn is all there


def lose_a_little(left: Delta, right: Delta, decoded: Delta) -> dict[str, Tensor]:
    from wire.feedback import leftover

    return add({}, leftover(left, right, decoded), 0.999)


def forget_the_residual(_delta: Delta, _residual: Delta, _policy: object) -> dict[str, Tensor]:
    return dict(_delta)


def test_a_codec_that_loses_a_little_of_what_it_leaves_out_is_found(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.trainer.leftover", lose_a_little)
    outcome = workshop.run(scenario())
    assert outcome.audit.broken == ["mass"]
    assert outcome.audit.mass > 0.9 * outcome.audit.created


def test_a_device_that_forgets_its_residual_is_found(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.trainer.compensate", forget_the_residual)
    assert workshop.run(scenario()).audit.broken == ["mass"]


def test_a_refused_update_that_is_not_taken_back_whole_is_found(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = {"update_s": 100.0, "update_sigma": 2.0, "offline_s": 0}
    world = scenario(fleet=fleet, admission={"max_staleness": 0}, aggregation={"buffer_size": 1})
    monkeypatch.setattr("edge_agent.outbox.add", lambda before, _content: dict(before))
    assert workshop.run(world).audit.broken == ["mass"]


def test_checks_can_be_left_out(
    workshop: Workshop, plain: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.trainer.leftover", lose_a_little)
    assert workshop.run(scenario(run={"checks": False})).audit.broken == []
    monkeypatch.undo()
    assert workshop.run(scenario(run={"checks": False})).model == plain.model
