"""Whole simulations: the same bits twice, invariants under faults, and faults that are found."""

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aggregator.engine import Engine
from aggregator.ledger import Decision, Ledger, Reports, UpdateKey, open_database
from aggregator.merging import advance
from device_sims.command import main
from device_sims.nature import Population
from device_sims.scenario import Attack, Faults, Scenario, read_scenario, to_toml
from device_sims.simulation.audit import Audit, PrivacyWatch
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.run import _moments
from device_sims.simulation.torture import FAULTS, PLAIN_FLEET, draw_scenario, shrink, smaller
from device_sims.simulation.virtual_time import START, VirtualTime
from device_sims.simulation.workshop import Workshop
from edge_agent.evaluation import Evaluation, evaluate
from tests.device_sims.made_once import made_once
from wire.messages import Outcome as WireOutcome
from wire.messages import Refusal

ALL_FAULTS = Faults(
    lost=0.1,
    duplicated=0.2,
    delayed=0.2,
    delay_s=300.0,
    corrupted=0.05,
    agent_crash=0.02,
    # Each takes a fold of everything so far, and another one while the disk is full.
    aggregator_crash=0.005,
    backup=0.5,
    agent_full=0.02,
    aggregator_full=0.02,
    full_s=30.0,
    broker_restarts_h=3.0,
)
CALM = Scenario.from_dict(
    {
        "task": {"training": {"interval_s": 300.0}},
        "data": {"users": 10},
        "fleet": {"clock_skew_s": 100.0},
        "aggregation": {"buffer_size": 4},
        "run": {"hours": 1.0, "evaluate_every_h": 0.5},
    },
    name="calm",
)
STORM = replace(CALM, name="storm", faults=ALL_FAULTS)


@pytest.fixture(scope="module")
def calm(workshop: Workshop) -> Outcome:
    return workshop.run(CALM)


def test_a_calm_fleet_learns_and_keeps_every_promise(calm: Outcome) -> None:
    assert calm.audit.broken == []
    assert calm.audit.created == calm.audit.accepted > 50
    assert calm.faults == {}
    assert [round(m.hours, 2) for m in calm.quality][:3] == [0.0, 0.5, 1.0]
    assert calm.quality[-1].updates == calm.audit.created
    assert sum(calm.staleness.values()) == calm.audit.created


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    workshop: Workshop, calm: Outcome
) -> None:
    assert workshop.run(CALM).to_dict() == calm.to_dict()
    other = workshop.run(CALM.with_seed(1))
    assert other.model != calm.model
    assert other.to_dict()["digest"] != calm.to_dict()["digest"]


def test_the_aggregator_knows_each_agents_version_and_state(workshop: Workshop) -> None:
    versions = {"0.1.0": 0.6, "0.0.9": 0.4}
    fleet = replace(CALM.fleet, agent_versions=versions, offline_s=0.0, stay_h=2.0)
    scenario = replace(CALM, fleet=fleet)
    outcome = workshop.run(scenario)
    assert outcome.audit.broken == []
    database = open_database(f"sqlite:///{workshop._folder / 'run' / 'aggregator' / 'ledger.db'}")
    seen = Reports(database).devices(workshop.prepare(scenario).bundle.task)
    database.dispose()
    population = Population(fleet, hours=1.0, seed=CALM.run.seed)
    natures = [population.nature(number) for number in range(10)]
    assert [report.agent for report in seen] == [nature.agent_version for nature in natures]
    states = ["offline" if nature.leaves_s < 3600.0 else "online" for nature in natures]
    assert [report.state for report in seen] == states
    assert {*versions, "offline", "online"} == {*states, *(report.agent for report in seen)}


def test_a_storm_breaks_nothing(workshop: Workshop) -> None:
    first = workshop.run(STORM)
    assert set(first.faults) == {
        *("lost", "duplicated", "delayed", "corrupted", "agent_crash", "aggregator_crash"),
        *("backup", "agent_full", "aggregator_full", "broker_restart"),
    }
    assert first.audit.broken == []
    assert first.audit.accepted > 30
    assert workshop.run(STORM).to_dict() == first.to_dict()


@pytest.mark.parametrize("seed", range(2))
def test_drawn_scenarios_break_nothing(workshop: Workshop, seed: int) -> None:
    drawn = draw_scenario(replace(CALM, run=replace(CALM.run, hours=0.7)), seed)
    assert workshop.run(drawn).audit.broken == []


def lose_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The aggregator answers before it writes, and sometimes never writes."""
    original = Ledger.take_in

    def take_in(self: Ledger, intake: Any) -> list[int]:
        if intake.updates and intake.updates[0].key.sequence % 3 == 0:
            return [10**9 + n for n, _ in enumerate(intake.updates)]
        return original(self, intake)

    monkeypatch.setattr(Ledger, "take_in", take_in)
    monkeypatch.setattr(Engine, "_let_wait", lambda *_: None)


def skip_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model in memory drifts from what the ledger says."""
    count = [0]

    def drift(state: Any, step: Any) -> Any:
        count[0] += 1
        found = advance(state, step)
        if count[0] == 5:
            next(iter(found.parameters.values()))[0] += 1.0
        return found

    monkeypatch.setattr("aggregator.task.advance", drift)


def test_an_aggregator_that_loses_updates_is_found_and_the_scenario_shrunk(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_updates(monkeypatch)
    faults = Faults(lost=0.1, duplicated=0.2, agent_crash=0.02)
    short = replace(CALM, run=replace(CALM.run, hours=0.5), faults=faults)
    assert "lost" in workshop.run(short).audit.broken
    failure = shrink(short, ("lost",), workshop.run)
    assert failure.scenario.data.users <= 2 or failure.scenario.run.hours < 0.2
    assert failure.scenario.faults.lost == 0.0
    assert failure.scenario.faults.agent_crash == 0.0


def test_a_model_that_drifts_from_its_ledger_is_found(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_a_step(monkeypatch)
    assert workshop.run(CALM).audit.broken == ["not_the_fold"]


def test_an_audit_looks_at_every_version_and_at_what_was_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("device_sims.simulation.audit._is_fold", lambda *_: True)
    members = {1: [1], 2: [2, 3], None: [4]}
    ledger: Any = SimpleNamespace(
        newest_version=lambda _task: SimpleNamespace(version=2, digest=""),
        between=lambda *_: [SimpleNamespace(version=v, updates=n) for v, n in ((1, 2), (2, 1))],
        members=lambda _task, version: [SimpleNamespace(id=id_) for id_ in members[version]],
        decisions=lambda keys: dict(
            zip(
                keys,
                (
                    Decision(outcome=WireOutcome.ACCEPTED),
                    Decision(outcome=WireOutcome.REJECTED, reason=Refusal.NORM),
                ),
                strict=False,
            )
        ),
    )
    told: Any = [UpdateKey("task", "device", sequence) for sequence in (1, 2, 3)]
    nothing: Any = SimpleNamespace(task="task")
    audit = Audit.of(
        *(ledger, nothing, nothing),
        **{"created": 3, "accepted": told, "unanswered": 0, "leaks": 0, "mass": 0},
    )
    # Of three that devices were told of, one was refused and one never came.
    assert (audit.lost, audit.unmerged, audit.twice) == (2, 2, 0)


def test_everything_that_can_happen_is_drawn() -> None:
    drawn = [draw_scenario(CALM, seed) for seed in range(60)]
    assert {name for one in drawn for name in FAULTS if getattr(one.faults, name)} == set(FAULTS)
    assert {one.attackers.kind for one in drawn if one.attackers.share} == set(Attack)
    assert {one.data.replay for one in drawn} == {False, True}
    assert {one.selection.rounds for one in drawn if one.selection.places} == {False, True}
    assert {any(one.selection.behind_versions) for one in drawn} == {False, True}
    rules = {
        key
        for one in drawn
        for key in ("trim", "row_clip", "krum_byzantine")
        if getattr(one.rule, key)
    }
    assert rules == {"trim", "row_clip", "krum_byzantine"}
    for name in PLAIN_FLEET:
        assert any(getattr(one.fleet, name) != PLAIN_FLEET[name] for one in drawn)
    for one in drawn:
        assert Scenario.from_dict(tomllib.loads(to_toml(one)), name="") == one


@pytest.mark.parametrize("seed", range(10))
def test_smaller_scenarios_end_somewhere(seed: int) -> None:
    scenario, steps = draw_scenario(STORM, seed), 0
    while (following := next(smaller(scenario), None)) is not None:
        scenario, steps = following, steps + 1
    assert steps < 40
    assert scenario.data.users <= 2
    assert not any(getattr(scenario.faults, name) for name in FAULTS)
    assert not scenario.attackers.share
    assert not scenario.data.replay
    assert not scenario.selection.places
    assert not scenario.fleet.classes


def test_a_private_parameter_in_a_message_is_noticed() -> None:
    watch = PrivacyWatch()
    private = [np.array([0.25, -3.0, 1e-3], np.float32)]
    watch.look(b"head" + private[0][:1].tobytes() + b"tail", private)
    watch.look(bytes(100), [np.zeros(4, np.float32)])
    assert watch.leaks == 0
    watch.look(b"x" + private[0].tobytes(), private)
    assert watch.leaks == 1


@pytest.mark.parametrize(
    ("hours", "every_h", "count"), [(1.2, 0.1, 12), (0.3, 0.1, 3), (5.0, 0.25, 20), (1.0, 0.3, 3)]
)
def test_evaluations_come_as_often_as_is_said_and_never_after_the_end(
    hours: float, every_h: float, count: int
) -> None:
    moments = _moments(hours, every_h)
    evaluated = [at for at, evaluate in moments if evaluate]
    assert evaluated == pytest.approx([every_h * n for n in range(count + 1)])
    assert moments[-1][0] == hours


def test_virtual_time_goes_in_order_and_can_be_interrupted() -> None:
    time, happened = VirtualTime(), list[str]()
    time.after(2.0, lambda: happened.append("second"))
    time.after(1.0, lambda: happened.append("first"))
    time.after(1.0, lambda: time.after(0.0, lambda: happened.append("then")))
    time.after(1.5, lambda: happened.append("never")).cancel()
    time.run_until(START + 1.7)
    assert (happened, time()) == (["first", "then"], START + 1.7)
    time.after(0.1, time.interrupt)
    time.run_until(START + 10)
    assert happened == ["first", "then"]
    time.interrupted = False
    time.run_until(START + 10)
    assert happened == ["first", "then", "second"]


def test_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_once(monkeypatch, tmp_path / "made")
    path = tmp_path / "scenario.toml"
    assert main(["simulate", "--example"]) == 0
    path.write_text(capsys.readouterr().out.replace("users = 0", "users = 5"))
    assert read_scenario(path).data.users == 5
    path.write_text(path.read_text().replace("hours = 2.0", "hours = 0.1"))
    digests = []
    for run in ("one", "two"):
        assert main(["simulate", str(path), "--out", str(tmp_path / run)]) == 0
        out = capsys.readouterr().out
        assert "invariants   all hold" in out
        digests += [line for line in out.splitlines() if line.startswith("digest")]
        assert (tmp_path / run / "outcome.json").is_file()
    assert digests[0] == digests[1]
    torture = ["torture", "--hours", "1e-6", "--like", str(path), "--out", str(tmp_path / "t")]
    assert main(torture) == 0
    assert "1 scenarios" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["simulate"], "no scenario is given"),
        (["simulate", "/nowhere.toml"], "cannot read /nowhere.toml"),
        (["torture", "--hours", "0"], "--hours is 0; expected a number above 0"),
        (["torture", "--processes", "0"], "--processes is 0; expected at least 1"),
        (["torture", "--processes", "2", "--ray", "local"], "--processes goes without --ray"),
    ],
)
def test_bad_arguments_are_one_line_and_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_quality_may_be_that_of_some_users(workshop: Workshop, calm: Outcome) -> None:
    few, again, all_of_them = (
        workshop.run(replace(CALM, run=replace(CALM.run, evaluate_users=users)))
        for users in (4, 4, 10)
    )
    assert {measured.examined for measured in calm.quality} == {10}
    assert {measured.examined for measured in few.quality} == {4}
    assert few.to_dict() == again.to_dict()
    assert few.model == calm.model
    assert all_of_them.to_dict() == calm.to_dict()


def test_devices_may_do_without_an_evaluation_of_their_own(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = list[int]()

    def counted(*arguments: Any, **others: Any) -> Evaluation | None:
        evaluated.append(1)
        return evaluate(*arguments, **others)

    monkeypatch.setattr("edge_agent.agent.evaluate", counted)
    for holdout in (True, False):
        outcome = workshop.run(replace(CALM, run=replace(CALM.run, holdout=holdout)))
        assert outcome.audit.broken == []
        assert outcome.audit.created > 50
        assert len(evaluated) == (outcome.audit.created if holdout else 0)
        evaluated.clear()


BROKEN = Audit(
    **dict.fromkeys(("created", "accepted", "lost"), 1),
    **dict.fromkeys(("unanswered", "twice", "unmerged", "not_the_fold", "leaks", "mass"), 0),
)


@pytest.mark.parametrize("broken", [False, True])
def test_ctrl_c_ends_the_torture_and_what_it_has_found_is_kept(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    broken: bool,
) -> None:
    shares = iter([1.0, 0.3] if broken else [0.3])

    def run(_workshop: Workshop, scenario: Scenario, *, progress: Any) -> Any:
        # Without a further share, it went on after Ctrl-C.
        progress(next(shares), 1)
        audit = BROKEN if broken else replace(BROKEN, lost=0)
        return SimpleNamespace(seed=scenario.run.seed, audit=audit, faults={})

    monkeypatch.setattr(Workshop, "run", run)
    out = tmp_path / "out"
    assert main(["torture", "--hours", "1", "--out", str(out)]) == int(broken)
    said = capsys.readouterr().out
    assert "stopped" in said
    assert ("no invariant broken" in said) is not broken
    if broken:
        assert "lost: repeat it with" in said
        assert read_scenario(out / "failure.toml").run.seed == 0
