"""A scenario is read whole, or refused with the key, the value and what was expected."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from aggregator.merging import Rule
from device_sims.command import main
from device_sims.data_options import DATASETS
from device_sims.nature.trace import OPTIONAL, REQUIRED
from device_sims.scenario import TABLES, Scenario, ScenarioError, example, read_scenario, to_toml


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return path


def test_the_example_says_all_the_defaults(tmp_path: Path) -> None:
    assert read_scenario(write(tmp_path, example())) == Scenario.from_dict({}, name="example")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    scenario = Scenario.from_dict(
        {
            "task": {"recommender": "sasrec", "training": {"epochs": 3}, "codec": {"nmse": 0.1}},
            "data": {"dataset": "csv", "files": ["a.csv"], "options": {"user_column": "who"}},
            "fleet": {
                "update_s": 30,
                "offline_s": 0,
                "plugged_hours": [22, 7],
                "classes": [{"name": "hub"}, {"name": "phone", "metered_hours": [8.5, 18]}],
                "trace": "there.csv",
                "agent_versions": {"0.1.0": 0.75, "0.0.9": 0.25},
            },
            "faults": {"lost": 0.25},
            "attackers": {"share": 0.1, "kind": "collude", "quiet": True, "item": 3},
            "aggregation": {"kind": "fadas", "buffer_size": 7},
            "admission": {"norm_quantile": 0.9, "rate_burst": 3},
            "run": {"hours": 12, "seed": 5},
        },
        name="all of it",
    )
    assert read_scenario(write(tmp_path, to_toml(scenario))) == scenario
    assert scenario.with_seed(9).run.seed == 9
    assert isinstance(scenario.fleet.update_s, float)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fleet]\nupdate_s = -1", r"fleet\.update_s is -1\.0; expected a number from 0"),
        ("[fleet]\nupdate_s = 0", r"fleet\.update_s is 0\.0; expected a number above 0"),
        ("[fleet]\nupdate_sigma = nan", r"fleet\.update_sigma is nan; expected"),
        ("[fleet]\nspeed = 1", "fleet has an unknown key 'speed'; it takes agent_versions"),
        ("[fleet]\nlatencys = 1", "did you mean latency_s"),
        ("fleet = 3", "fleet is 3; expected a table"),
        ("[flet]\n", "unknown key 'flet'; did you mean fleet"),
        ("[fleet]\nplugged_hours = [1]", r"plugged_hours is \[1\]; expected \[from, to\], two"),
        ("[fleet]\nplugged_hours = [24, 0]", r"plugged_hours is \[24, 0\]; expected"),
        ("[fleet]\nplugged_hours = [3, 25]", r"plugged_hours is \[3, 25\]; expected"),
        ("[fleet]\nplugged_hours = 3", r"fleet\.plugged_hours is 3; expected a list"),
        (
            "[fleet]\nplugged_hours = [9, 12]\nmetered_hours = [8, 12]",
            r"metered_hours is \[8, 12\]; expected to leave some of plugged_hours",
        ),
        ("[fleet]\ntime_zones = []", r"fleet\.time_zones is \[\]; expected a list of hours"),
        ("[fleet]\ntime_zones = [15]", r"fleet\.time_zones is \[15\]; expected"),
        ("[fleet]\nnew_share = 2", r"fleet\.new_share is 2\.0; expected a number from 0 to 1"),
        ("[fleet]\ntrace_repeats_h = 2", r"trace_repeats_h is 2\.0; expected 0 where no trace"),
        ("[fleet]\ntrace = 2", r"fleet\.trace is 2; expected a text"),
        (
            '[fleet.agent_versions]\n"0.1.0" = 0.8\n"0.0.9" = 0.1',
            r"fleet\.agent_versions is \{'0\.1\.0': 0\.8, .* shares that add up to 1, not 0\.9",
        ),
        (
            '[fleet.agent_versions]\n"0.1.0" = 1.5\n"0.0.9" = -0.5',
            r"fleet\.agent_versions\.0\.1\.0 is 1\.5; expected a number from 0 to 1",
        ),
        (
            '[fleet.agent_versions]\n"0.0.9" = -0.5\n"0.1.0" = 1.5',
            r"fleet\.agent_versions\.0\.0\.9 is -0\.5; expected a number from 0 to 1",
        ),
        ('[fleet.agent_versions]\na = "1"', r"agent_versions\.a is '1'; expected a number"),
        ('[fleet.agent_versions]\n"" = 1', r"agent_versions is ''; expected versions of 1 to 40"),
        ("[fleet]\nagent_versions = 1", r"fleet\.agent_versions is 1; expected a table"),
        ("[fleet]\nclasses = 3", r"fleet\.classes is 3; expected tables \[\[fleet\.classes\]\]"),
        ("[[fleet.classes]]\nshare = 1", r"fleet\.classes\[0\]\.name is missing"),
        (
            '[[fleet.classes]]\nname = "a"\n[[fleet.classes]]\nname = "b"\nupdate_s = -2',
            r"fleet\.classes\[1\]\.update_s is -2\.0; expected a number from 0",
        ),
        (
            '[[fleet.classes]]\nname = "a"\nclock_skew_s = 1',
            r"fleet\.classes\[0\] has an unknown key 'clock_skew_s'",
        ),
        (
            '[[fleet.classes]]\nname = "a"\nshare = 0',
            r"\[0\]\.share is 0\.0; expected a number above",
        ),
        (
            '[[fleet.classes]]\nname = "a"\n[[fleet.classes]]\nname = "a"',
            "fleet.classes names 'a' twice",
        ),
        ("[faults]\nbroker_restarts_h = 99", r"broker_restarts_h is 99\.0; expected"),
        ("[faults]\nagent_full = 0.5", r"faults\.agent_full is 0\.5; expected .* to 0\.2"),
        ("[faults]\nseed = -1", r"faults\.seed is -1; expected an integer from 0"),
        ('[attackers]\nkind = "bribe"', r"attackers\.kind is 'bribe'; expected one of sign-flip"),
        ("[attackers]\nshare = -0.1", r"attackers\.share is -0\.1; expected a number from 0 to 1"),
        ("[attackers]\nquiet = 1", r"attackers\.quiet is 1; expected true or false"),
        ("[admission]\nnorm_quantil = 1", "unknown key 'admission.norm_quantil'; did you mean"),
        ("[admission]\nmax_staleness = -1", r"admission\.max_staleness is -1; expected 0 or more"),
        ('[admission]\nrate_burst = "x"', r"admission\.rate_burst is 'x'; expected a whole number"),
        ("[data]\nreplay = 1", r"data\.replay is 1; expected true or false"),
        (
            "[data]\nreplay = true\nhistory = 0.8\nfuture = 0.2",
            r"data\.future is 0\.2; expected less than 0\.2",
        ),
        ("[data.options]\nitems = 1.5", r"data\.options\.items is 1\.5; expected a whole number"),
        ("[faults]\nlost = 2", r"faults\.lost is 2\.0; expected a number from 0 to 1"),
        ("[faults]\nagent_crash = 0.5", r"faults\.agent_crash is 0\.5; expected .* to 0\.2"),
        ('[run]\nseed = "x"', r"run\.seed is 'x'; expected a whole number"),
        ("[run]\nseed = 1.5", r"run\.seed is 1\.5; expected a whole number"),
        ("[run]\nseed = true", r"run\.seed is True; expected a whole number"),
        (
            "[run]\nevaluate_every_h = 1e-9",
            r"run\.evaluate_every_h is 1e-09; expected 0, or at least 0\.001",
        ),
        ("[run]\nholdout = 1", r"run\.holdout is 1; expected true or false"),
        ("[run]\nevaluate_users = -1", r"run\.evaluate_users is -1; expected an integer from 0"),
        ("[service]\ntogether_s = -1", r"service\.together_s is -1\.0; expected a number from 0"),
        ('[service]\nannounce_interval_s = "x"', r"announce_interval_s is 'x'; expected a number"),
        ("[service]\nsnapshot_every = 0", r"snapshot_every is 0; expected an integer from 1"),
        ("[service]\nkeep_snapshots = 1.5", r"keep_snapshots is 1\.5; expected a whole number"),
        ("[service]\nkeep_publications = 0", r"keep_publications is 0; expected an integer from 1"),
        ("[service]\nkeep_every = -1", r"service\.keep_every is -1; expected an integer from 0"),
        ("[service]\nkeep_evry = 1", "service has an unknown key 'keep_evry'; did you mean"),
        ("[run]\nhours = 0", r"run\.hours is 0\.0; expected a number above 0"),
        ('[data]\ndataset = "netflix"', r"data\.dataset is 'netflix'; expected one of synthetic"),
        ("[data]\nusers = -1", r"data\.users is -1; expected an integer from 0"),
        ("[data]\nfiles = [1]", r"data\.files has 1; expected paths"),
        ('[data]\ndataset = "frappe"', r"files is \[\]; expected one path with dataset frappe"),
        ('[data]\nfiles = ["a"]', r"files is \['a'\]; expected none with dataset synthetic"),
        (
            '[data]\ndataset = "csv"\nfiles = ["a"]\noptions = { items = 20 }',
            r"data\.options\.items goes with synthetic; data\.dataset is csv",
        ),
        ("[data.options]\ncolumn = 1", "data.options has an unknown key 'column'"),
        ('[task]\noptimizer = "lamb"', r"task\.optimizer is 'lamb'; expected one of sgd"),
        ("[task]\nepochs = 1", "task has an unknown key 'epochs'"),
        ("[task.training]\nepochs = 0", r"training\.epochs is 0"),
        ("[aggregation]\nmomentum = 0.5", r"rule\.momentum is 0\.5; expected no such key"),
        ("[selection]\nplaces = -1", r"selection\.places is -1; expected an integer from 0"),
        ("[selection]\nrounds = true", r"selection\.places is 0; expected at least 1 with rounds"),
        (
            "[selection]\nbehind_versions = [3, 1]",
            r"selection\.behind_versions is \[3, 1\]; expected \[low, high\], two whole numbers",
        ),
        ("[selection]\nbehind_versions = [0, 500]", r"numbers from 0 to 90 in this order"),
        (
            "[selection]\nbehind_versions = [5, 8]\n[service]\nkeep_publications = 17",
            r"behind_versions is \[5, 8\]; expected .* from 0 to 7 .* service\.keep_publications",
        ),
        ("[selection]\nbehind_versions = 3", r"selection\.behind_versions is 3; expected a list"),
        ("a = = 3", "is not TOML"),
    ],
)
def test_a_refusal_names_key_value_and_what_was_expected(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ScenarioError, match=says) as refused:
        read_scenario(write(tmp_path, text))
    assert "scenario.toml" in str(refused.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ScenarioError, match=r"cannot read /nowhere\.toml: No such file"):
        read_scenario(Path("/nowhere.toml"))


ROBUST = (
    {"row_clip": 5.0},
    {"trim": 0.2},
    {"krum_byzantine": 2},
    {"optimizer": "yogi", "server_learning_rate": 0.1},
    {"staleness_scope": "row", "row_correction": "heat", "participation_exponent": 0.5},
    {"kind": "ca2fl"},
    {"kind": "fedavg", "weighting": "examples"},
)


@pytest.mark.parametrize("keys", ROBUST)
def test_every_choice_of_the_merge_can_be_named(keys: dict[str, object]) -> None:
    scenario = Scenario.from_dict({"aggregation": keys}, name="")
    assert scenario.rule == Rule.from_dict(keys)
    assert scenario.rule.to_dict().items() >= keys.items()


def test_the_documentation_names_every_key() -> None:
    text = (Path(__file__).parents[3] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    sections = {
        name: section
        for section in text.split("\n## ")[1:]
        for name in TABLES
        if f"[{name}]" in section.split("\n", 1)[0]
    }
    every = tomllib.loads(example())
    policies = every["task"]["training"].keys() | every["task"]["codec"].keys()
    keys = {name: set(every[name]) for name in TABLES}
    keys["task"] |= policies
    keys["aggregation"] = set(Rule.__dataclass_fields__)
    keys["data"] |= {option for taken in DATASETS.values() for option in taken}
    keys["fleet"] |= {"name", "share"} | {*OPTIONAL, *REQUIRED}
    assert {n: k for n, ks in keys.items() for k in ks if f"`{k}`" not in sections[n]} == {}


def test_what_a_file_leaves_out_is_taken_from_the_one_it_is_like(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "first.toml").write_text(
        'name = "first"\n[fleet]\nupdate_s = 7\nlatency_s = 2\n[run]\nhours = 3\n'
    )
    (tmp_path / "base" / "second.toml").write_text('like = "first.toml"\n[fleet]\nupdate_s = 8\n')
    path = tmp_path / "third.toml"
    path.write_text('like = "base/second.toml"\n[data]\nusers = 9\n')
    found = read_scenario(path)
    assert found.name == "third"
    assert (found.fleet.update_s, found.fleet.latency_s) == (8.0, 2.0)
    assert (found.run.hours, found.data.users) == (3.0, 9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\nusers = 9", "data.users is 9; expected at most 3, the users of events"),
        ('[fleet]\ntrace = "trace.csv"', "trace.csv, line 2: 'a,5,1'"),
        ("[data.options]\nrepeats = true", "line 14: 'broken'"),
        ("[data.options]\ndrift_share = 0.5", "data.options.drift_share goes with synthetic"),
    ],
)
def test_what_the_files_lack_is_said_before_anything_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"u{user},i{item},{item}" for user in range(3) for item in range(4)]
    broken = ["broken"] if "repeats" in text else []
    Path("events.csv").write_text("\n".join(["user,item,time", *lines, *broken]))
    Path("trace.csv").write_text("device,from_s,to_s\na,5,1\n")
    data = '[data]\ndataset = "csv"\nfiles = ["events.csv"]\n'
    given = text.replace("[data]\n", data) if "[data]" in text else data + text
    assert main(["simulate", str(write(tmp_path, given)), "--out", "out"]) == 2
    assert says in capsys.readouterr().err
    assert not any(Path("out").rglob("*.db"))
    assert not any(Path("out").rglob("manifest.json"))


def test_the_other_commands_do_not_wait_for_the_simulator() -> None:
    heavy = ("sqlalchemy", "alembic", "torch", "fastapi", "plotly")
    code = (
        "import sys\nfrom device_sims.command import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"assert not [name for name in {heavy} if name in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('like = "scenario.toml"', "which in the end is like this one"),
        ('like = "other.toml"', "which in the end is like this one"),
        ('like = "none.toml"', r"cannot read .*none\.toml: No such file"),
        ("like = 3", "like is 3; expected the path of a scenario"),
    ],
)
def test_what_a_file_is_like_must_be_there_and_another(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "other.toml").write_text('like = "scenario.toml"')
    with pytest.raises(ScenarioError, match=says):
        read_scenario(write(tmp_path, text))


def test_a_grid_is_for_comparisons(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text("[grid.hours.few.run]\nhours = 1\n")
    with pytest.raises(ScenarioError, match=r"grid\.toml has a grid .* `rivulet-fleet compare`"):
        read_scenario(path)
