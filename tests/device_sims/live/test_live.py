"""One scenario both ways: for real and under a virtual clock; and what a real run refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.ledger import Reports, open_database
from device_sims.brokers import Broker, EmbeddedBroker, find_mosquitto
from device_sims.command import main
from device_sims.fleet import FleetError, device_name
from device_sims.live.access import Access, read_passwords
from device_sims.live.feasible import check_feasible, left_out
from device_sims.live.pace import Pace, hurried
from device_sims.live.run import UNCHECKED, LiveSettings, Seen, run_live
from device_sims.live.troubles import Troubles
from device_sims.scenario import (
    Attackers,
    Faults,
    Scenario,
    ScenarioError,
    Selection,
    Service,
    load_interactions,
    to_toml,
)
from device_sims.service import USER, AggregatorProcess
from device_sims.simulation.workshop import Workshop, build_task
from edge_agent.config import TlsFiles
from tests.device_sims.live.tls_front import tls_front
from tests.edge_agent.mosquitto import Mosquitto, make_certificates
from tests.edge_agent.running import wait_until

FLEET = Path(sys.executable).with_name("rivulet-fleet")
DEADLINE_S = 120.0
SPEED_UP = 80.0
SCENARIO = Scenario.from_dict(
    {
        "task": {"training": {"interval_s": 120.0}},
        "data": {"users": 30},
        "fleet": {
            "update_s": 5.0,
            "update_sigma": 0.5,
            "online_s": 900.0,
            "offline_s": 60.0,
            "clock_skew_s": 10.0,
            "agent_versions": {"0.1.0": 0.6, "0.0.9": 0.4},
        },
        "aggregation": {"buffer_size": 5},
        # So that whatever is made is accepted in the end.
        "admission": {"norm_factor": 0.0},
        "run": {"hours": 0.35, "evaluate_every_h": 0.0},
    },
    name="both",
)
FEW = replace(SCENARIO, data=replace(SCENARIO.data, users=6))
QUALITY_TOLERANCE = 0.15
"""Of NDCG@10: of 30 devices, four that rank their item elsewhere move it as much."""
UPDATES_TOLERANCE = 0.25
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs the openssl command"
)
needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")


@pytest.mark.slow
@needs_mosquitto
def test_a_scenario_ends_the_same_for_real_and_under_a_virtual_clock(tmp_path: Path) -> None:
    simulated = Workshop(tmp_path / "simulated").run(SCENARIO)
    least = (1.0 - UPDATES_TOLERANCE) * simulated.audit.created
    # A machine that is busy with other things cannot drive the fleet at any speed.
    for speed_up in (SPEED_UP, SPEED_UP / 2, SPEED_UP / 4, SPEED_UP / 8):
        root = tmp_path / f"{speed_up:g}"
        live = run_live(SCENARIO, _settings(root, processes=2, speed_up=speed_up))
        real = live.outcome
        if real.audit.created > least:
            break
    assert simulated.audit.broken == real.audit.broken == []
    assert (live.unchecked, live.errors, live.stopped) == ((), 0, False)
    assert (real.devices, live.took_part) == (simulated.devices, simulated.devices)
    # The same devices by nature: each third and each class has the same members.
    assert {name: group.devices for name, group in real.groups.items()} == {
        name: group.devices for name, group in simulated.groups.items()
    }
    versions = [
        _versions(folder / "run" / "aggregator") for folder in (tmp_path / "simulated", root)
    ]
    assert versions[0] == versions[1]
    assert set(versions[0].values()) == {"0.1.0", "0.0.9"}
    assert real.audit.created == pytest.approx(simulated.audit.created, rel=UPDATES_TOLERANCE)
    assert real.audit.accepted == real.audit.created
    ends = [outcome.quality[-1].ndcg_at_10 for outcome in (simulated, real)]
    assert ends[1] == pytest.approx(ends[0], abs=QUALITY_TOLERANCE)
    sent = [outcome.quality[-1].bytes_up / outcome.audit.created for outcome in (simulated, real)]
    assert sent[1] == pytest.approx(sent[0], rel=0.1)


@pytest.mark.slow
@needs_mosquitto
def test_agents_aggregator_and_broker_that_die_lose_nothing(tmp_path: Path) -> None:
    scenario = replace(
        SCENARIO,
        run=replace(SCENARIO.run, hours=0.2),
        faults=Faults(agent_crash=0.1, aggregator_crash=0.1, broker_restarts_h=20.0),
        # Interactions and devices come as time goes by, and some devices go for good.
        data=replace(SCENARIO.data, replay=True),
        fleet=replace(SCENARIO.fleet, new_share=0.3, stay_h=1.0),
    )
    live = run_live(scenario, _settings(tmp_path, processes=2))
    assert (live.outcome.audit.broken, live.errors) == ([], 0)
    assert live.outcome.audit.accepted > 10
    # How many updates are answered, after each of which the aggregator may die, is the machine's.
    always, sometimes = {"agent_crash", "broker_restart"}, {"aggregator_crash"}
    assert always <= set(live.outcome.faults) <= always | sometimes


@pytest.mark.slow
def test_bad_links_full_disks_and_old_backups_lose_nothing(tmp_path: Path) -> None:
    faults = Faults(
        lost=0.15,
        duplicated=0.2,
        delayed=0.2,
        corrupted=0.15,
        agent_crash=0.03,
        backup=0.5,
        agent_full=0.02,
        seed=3,
    )
    scenario = replace(SCENARIO, faults=faults, run=replace(SCENARIO.run, hours=0.25))
    live = run_live(scenario, _settings(tmp_path, broker="embedded"))
    assert live.outcome.audit.broken == []
    assert live.outcome.audit.accepted > 10
    kinds = {"lost", "duplicated", "delayed", "corrupted", "agent_crash", "agent_full", "backup"}
    assert set(live.outcome.faults) == kinds
    assert live.left_out == []


@pytest.mark.slow
def test_ctrl_c_reports_what_was_done_and_leaves_nobody_behind(tmp_path: Path) -> None:
    scenario = replace(FEW, run=replace(FEW.run, hours=100.0, evaluate_every_h=0.01))
    (tmp_path / "long.toml").write_text(to_toml(scenario))
    out = tmp_path / "run"
    command = [str(FLEET), "run", str(tmp_path / "long.toml"), "--speed-up", "120"]
    with subprocess.Popen(
        [*command, "--broker", "embedded", "--processes", "2", "--out", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("training"):
                break
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "stopped: delivering" in said
    document: dict[str, Any] = json.loads((out / "outcome.json").read_text())
    assert document["live"]["stopped"] is True
    assert document["audit"]["unanswered"] == 0
    # What watches over the processes' shared memory ends a moment after them.
    wait_until(lambda: _session(process.pid) == [])


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    def kill(_seen: Seen) -> bool:
        active_children()[0].kill()
        return False

    settings = _settings(tmp_path, processes=2, broker="embedded")
    with pytest.raises(FleetError, match=r"killed, or .* what the agents stored .* stays in --out"):
        run_live(FEW, settings, enough=kill)
    assert (settings.out / "devices" / device_name(0) / "agent.db").is_file()
    assert active_children() == []


@pytest.mark.slow
@needs_openssl
def test_a_service_elsewhere_is_used_once_it_has_the_task(tmp_path: Path) -> None:
    scenario = replace(FEW, run=replace(FEW.run, hours=0.1))
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(tmp_path / "broker"))
        aggregator = stack.enter_context(_aggregator(tmp_path, broker.url, hurried(scenario, 1.0)))
        url = aggregator.client.url
        settings = _settings(tmp_path, processes=1, broker=broker.url, aggregator=url)
        with pytest.raises(ScenarioError, match="does not serve this scenario's task"):
            run_live(scenario, settings)
        # It serves the task of a slower clock: another interval, so another task.
        aggregator.stop()
        bundle = tmp_path / "task"
        shutil.copytree(settings.out / "bundle", bundle)
        again = stack.enter_context(
            AggregatorProcess(
                tmp_path / "other", broker=broker.url, bundle=bundle, password=None, settings={}
            )
        )
        made = make_certificates(tmp_path / "certificates")
        url = stack.enter_context(tls_front(again.client.url, made))
        tls = TlsFiles(ca=made.ca, cert=made.device_cert, key=made.device_key)
        live = run_live(
            scenario,
            replace(settings, out=tmp_path / "again", aggregator=url, access=Access(tls=tls)),
        )
    assert live.unchecked == UNCHECKED
    assert live.outcome.audit.created == live.outcome.audit.accepted > 0
    assert live.outcome.audit.broken == []
    assert any("[aggregation]" in sentence for sentence in live.left_out)


@pytest.mark.slow
@needs_mosquitto
@needs_openssl
def test_a_broker_elsewhere_may_ask_for_certificates_and_passwords(tmp_path: Path) -> None:
    scenario = replace(
        SCENARIO, data=replace(SCENARIO.data, users=4), run=replace(SCENARIO.run, hours=0.1)
    )
    names = [USER, *map(device_name, range(4))]
    passwords = {name: f"of-{name}" for name in names}
    made = make_certificates(tmp_path / "certificates")
    tls = TlsFiles(ca=made.ca, cert=made.device_cert, key=made.device_key)
    with Mosquitto(
        tmp_path / "there", passwords=passwords, certificates=made, client_certificates=True
    ) as broker:
        settings = _settings(
            tmp_path,
            processes=1,
            broker=f"mqtts://localhost:{broker.port}",
            access=Access(tls=tls, passwords=passwords),
        )
        live = run_live(scenario, settings)
    assert (live.took_part, live.errors, live.unchecked) == (4, 0, ())
    assert live.outcome.audit.broken == []


def test_passwords_are_read_a_line_for_each_user(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("aggregator:a:b\n\ndevice-00000:c\n")
    found = read_passwords(file)
    assert found == {"aggregator": "a:b", "device-00000": "c"}
    Access(passwords=found).check(["aggregator", "device-00000"])
    Access().check(["aggregator"])
    with pytest.raises(
        ScenarioError, match=r"no device-00001 and 1 others; .* for each of 3 users"
    ):
        Access(passwords=found).check(["device-00000", "device-00001", "device-00002"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("device-00000:secret\ndevice-00001\n", "line 2: expected NAME:PASSWORD"),
        (":secret\n", "line 1"),
        ("device-00000:\n", "line 1"),
        ("device-00000:secret\ndevice-00000:secret\n", "line 2: .* each name once"),
    ],
)
def test_a_bad_file_of_passwords_is_refused_and_not_quoted(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "passwords"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ScenarioError, match=said) as refused:
        read_passwords(file)
    assert "secret" not in str(refused.value)


@given(st.floats(0.01, 1e4))
def test_a_faster_clock_shortens_what_the_task_and_the_aggregator_wait(factor: float) -> None:
    faster = hurried(SCENARIO, factor)
    interval_s = faster.model.training.interval_s
    assert interval_s * factor == pytest.approx(SCENARIO.model.training.interval_s)
    announced_s = faster.service.announce_interval_s
    assert announced_s * factor == pytest.approx(SCENARIO.service.announce_interval_s)
    assert (faster.fleet, faster.faults, faster.run) == (
        SCENARIO.fleet,
        SCENARIO.faults,
        SCENARIO.run,
    )
    pace = Pace(factor, 0.0)
    assert pace.wall_s(60.0) * factor == pytest.approx(60.0)


def test_what_cannot_be_done_for_real_is_said() -> None:
    faults = Faults(aggregator_full=0.1, aggregator_crash=0.01, broker_restarts_h=2.0)
    scenario = replace(SCENARIO, faults=faults, service=Service(together_s=2.0))
    said = "\n".join(left_out(scenario, own_broker=True, own_aggregator=True))
    assert "faults.aggregator_full = 0.1" in said
    assert "service.together_s = 2" in said
    assert "aggregator_crash" not in said
    assert "broker_restarts_h" not in said
    said = "\n".join(left_out(scenario, own_broker=False, own_aggregator=False))
    for name in ("aggregator_crash", "broker_restarts_h", "[aggregation]"):
        assert name in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attackers": Attackers(share=0.2)}, r"attackers\.share is 0\.2"),
        ({"selection": Selection(places=10)}, r"selection\.places is 10; expected 0"),
        (
            {"selection": Selection(behind_versions=(3, 5))},
            r"selection\.behind_versions is \(3, 5\); expected \(0, 0\)",
        ),
    ],
)
def test_what_would_make_it_another_run_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        check_feasible(replace(SCENARIO, **changed))


def test_an_aggregator_is_started_again_at_once_when_the_run_is_to_end() -> None:
    happened: list[str] = []

    class Aggregator:
        def kill(self) -> None:
            happened.append("killed")

        def restart(self) -> None:
            happened.append("started")

    def stopped() -> bool:
        happened.append("asked")
        return True

    troubles = Troubles(
        Faults(aggregator_crash=0.2, restart_s=30.0),
        cast(AggregatorProcess, Aggregator()),
        cast(Broker, None),
        Pace(1.0, time.time()),
        np.random.default_rng(0),
        stopped,
    )
    troubles.strike(1_000)
    assert happened == ["killed", "asked", "started"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed-up", "0"], "--speed-up is 0"),
        (["--speed-up", "nan"], "--speed-up is nan"),
        (["--processes", "0"], "--processes is 0"),
        (["--aggregator", "http://127.0.0.1:1"], "--aggregator goes with --broker URL"),
        (["--broker", "mqtt://127.0.0.1:1"], "no broker answers"),
        (["--ca", "ca.pem"], "--ca goes with --broker mqtts://"),
        (["--broker", "mqtts://127.0.0.1:1", "--ca", "ca.pem"], "--ca ca.pem is not there"),
        (["--broker", "mqtts://127.0.0.1:1", "--key", "a.toml"], "--key goes with --cert"),
        (
            [
                *("--broker", "mqtt://127.0.0.1:1", "--aggregator", "https://127.0.0.1:1"),
                *("--cert", "c.pem"),
            ],
            "--cert c.pem is not there",
        ),
        (["--passwords", "them"], "--passwords goes with --broker URL"),
        (["--broker", "mqtt://127.0.0.1:1", "--passwords", "them"], "them cannot be read"),
    ],
)
def test_bad_options_are_named(
    tmp_path: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(to_toml(SCENARIO))
    assert main(["run", "a.toml", *options, "--out", "run"]) in (1, 2)
    assert said in capsys.readouterr().err


def _session(leader: int) -> list[str]:
    """The processes that are left of a session."""
    command = ["ps", "-o", "pid=", "-s", str(leader)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def _versions(aggregator: Path) -> dict[str, str | None]:
    """What each agent said that it is."""
    database = open_database(f"sqlite:///{aggregator / 'ledger.db'}")
    reports = Reports(database)
    (task, _), *_ = reports.tasks()
    found = {report.device: report.agent for report in reports.devices(task.task)}
    database.dispose()
    return found


def _settings(
    root: Path, *, broker: str = "mosquitto", speed_up: float = SPEED_UP, **others: Any
) -> LiveSettings:
    return LiveSettings(out=root / "run", broker=broker, speed_up=speed_up, **others)


def _aggregator(root: Path, broker: str, scenario: Scenario) -> AggregatorProcess:
    interactions = load_interactions(scenario.data)
    bundle, _ = build_task(scenario.model, interactions, root / "slower")
    return AggregatorProcess(
        root / "service", broker=broker, bundle=bundle.root, password=None, settings={}
    )
