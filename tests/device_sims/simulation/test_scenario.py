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
