"""Files of many scenarios, and the scenarios that ship."""

from pathlib import Path

import pytest

from device_sims.comparison.grid import find_scenarios
from device_sims.scenario import ScenarioError

SHIPPED = Path(__file__).parents[3] / "device_sims" / "scenarios"
GRID = """
like = "base.toml"
[grid.speed.slow.fleet]
update_s = 60
[grid.speed.quick]
[grid.buffer."20".aggregation]
buffer_size = 20
[grid.buffer."40"]
aggregation.buffer_size = 40
fleet.update_s = 3
"""


def test_every_combination_in_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("[fleet]\nupdate_s = 9\n[data]\nusers = 7\n")
    path = tmp_path / "study.toml"
    path.write_text(GRID)
    found = find_scenarios([path])
    assert [one.name for one in found] == ["slow, 20", "slow, 40", "quick, 20", "quick, 40"]
    assert [one.fleet.update_s for one in found] == [60.0, 3.0, 9.0, 3.0]
    assert [one.rule.buffer_size for one in found] == [20, 40, 20, 40]
    assert {one.data.users for one in found} == {7}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid = 3", "grid is 3; expected tables"),
        ("[grid]\nspeed = 3", r"grid\.speed is 3; expected tables \[grid\.speed\.CHOICE\]"),
        ("[grid.speed]", r"grid\.speed is {}; expected tables"),
        ("[grid.speed]\nslow = 3", r"grid\.speed\.slow is 3; expected tables of a scenario"),
        ("[grid.speed.slow.fleet]\nupdate_s = -1", r"study\.toml, slow: fleet\.update_s is -1"),
        ("[grid.speed.slow.flet]", r"study\.toml, slow: unknown key 'flet'"),
        (
            "\n".join(f"[grid.a{axis}.c{n}]" for axis in range(4) for n in range(6)),
            "grid has 1,296 combinations; expected at most 1,000",
        ),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=says):
        find_scenarios([path])


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("[0-9]*.toml")), ids=lambda path: path.stem)
def test_what_ships_can_be_read_and_names_no_place_of_a_machine(path: Path) -> None:
    found = find_scenarios([path])
    assert len({one.name for one in found}) == len(found) > 1
    for one in found:
        assert one.data.files
        assert not any(file.is_absolute() for file in one.data.files)


def test_each_question_has_its_scenarios() -> None:
    assert {path.name[0] for path in SHIPPED.glob("[0-9]*.toml")} == set("123456")
