"""A scenario is read whole, or refused with the key, the value and what was expected."""

from pathlib import Path

import pytest

from device_sims.scenario import Scenario, ScenarioError, example, read_scenario, to_toml


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
            "fleet": {"update_s": 30, "offline_s": 0},
            "faults": {"lost": 0.25},
            "aggregation": {"kind": "fadas", "buffer_size": 7},
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
        ("[fleet]\nspeed = 1", "fleet has an unknown key 'speed'; it takes classes, clock_skew_s"),
        ("[fleet]\nlatencys = 1", "did you mean latency_s"),
        ("fleet = 3", "fleet is 3; expected a table"),
        ("[flet]\n", "unknown key 'flet'; did you mean fleet"),
        ("[faults]\nlost = 2", r"faults\.lost is 2\.0; expected a number from 0 to 1"),
        ("[faults]\nagent_crash = 0.5", r"faults\.agent_crash is 0\.5; expected .* to 0\.2"),
        ('[run]\nseed = "x"', r"run\.seed is 'x'; expected a whole number"),
        ("[run]\nseed = 1.5", r"run\.seed is 1\.5; expected a whole number"),
        ("[run]\nseed = true", r"run\.seed is True; expected a whole number"),
        ("[run]\nhours = 0", r"run\.hours is 0\.0; expected a number above 0"),
        ('[data]\ndataset = "netflix"', r"data\.dataset is 'netflix'; expected one of synthetic"),
        ("[data]\nusers = -1", r"data\.users is -1; expected an integer from 0"),
        ("[data]\nfiles = [1]", r"data\.files has 1; expected paths"),
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
