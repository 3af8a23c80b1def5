"""Windows of smart-home actions: joined to the logs that they were cut from."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.datasets import DatasetError, FormatError, LineError, load_smartthings
from device_sims.datasets.smartthings import join_windows

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "smarthome-smartthings"
FRANCE = [FOLDER / f"fr_{part}.csv" for part in ("trn", "vld", "test")]
HEADER = "instance,step,day_of_week,hour3,device,control,device_control"
LENGTHS = st.lists(st.integers(10, 40), min_size=1, max_size=5)


def logs_of(lengths: list[int]) -> list[list[int]]:
    """Logs in which no row occurs twice."""
    starts = [100 * number for number in range(len(lengths))]
    return [
        list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)
    ]


def cut(log: list[int], step: int) -> list[list[int]]:
    return [log[at : at + 10] for at in range(0, len(log) - 9, step)]


@given(LENGTHS, st.randoms(use_true_random=False))
def test_shuffled_windows_become_the_logs_that_they_were_cut_from(
    lengths: list[int], random: Random
) -> None:
    logs = logs_of(lengths)
    windows = [window for log in logs for window in cut(log, 1)]
    random.shuffle(windows)

    joined = join_windows(windows + windows[:3])

    assert sorted(joined) == sorted(logs)
    assert [log[:10] for log in joined] == [
        window for window in windows if window in [log[:10] for log in logs]
    ]


@given(LENGTHS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_windows_may_lack_up_to_half_of_the_next_one(
    lengths: list[int], step: int, random: Random
) -> None:
    logs = logs_of(lengths)
    windows = [window for log in logs for window in cut(log, step)]
    random.shuffle(windows)
    whole = [log[: (len(log) - 10) // step * step + 10] for log in logs]
    assert sorted(join_windows(windows)) == sorted(whole)


def test_windows_that_share_less_than_half_stay_apart() -> None:
    windows = [list(range(10)), list(range(6, 16))]
    assert join_windows(windows) == windows


@given(st.lists(st.lists(st.integers(0, 1), min_size=10, max_size=10), min_size=1, max_size=20))
def test_every_window_is_in_exactly_one_log_and_no_log_runs_in_a_circle(
    windows: list[list[int]],
) -> None:
    """Rows that repeat fit in many ways; whatever fits where, nothing is lost or invented."""
    distinct = {tuple(window) for window in windows}
    joined = join_windows(windows)
    found = [tuple(log[at : at + 10]) for log in joined for at in range(len(log) - 9)]
    assert distinct <= set(found)
    assert len(joined) <= len(distinct)
    assert sum(len(log) for log in joined) <= 10 * len(distinct)


def write(path: Path, windows: list[list[int]]) -> Path:
    """Actions of which day, slot and device follow from the number."""
    lines = [HEADER]
    for number, window in enumerate(windows):
        lines += [
            f"{number},{step},{action % 7},{action % 8},{action // 4},0,{action}"
            for step, action in enumerate(window)
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_files_of_one_country_are_read_together(tmp_path: Path) -> None:
    log = [*range(12), 3, 3]
    windows = cut(log, 1)
    first = write(tmp_path / "trn.csv", windows[::2])
    second = write(tmp_path / "vld.csv", [list(range(20, 30)), *windows[1::2]])

    found = load_smartthings([first, second])

    assert found.name == "smartthings"
    assert found.repeats
    assert found.user_labels == ("household-0000", "household-0001")
    actions = [int(found.item_labels[item]) for item in found.items]
    assert actions == [*log, *range(20, 30)]
    assert found.times.tolist() == [*range(14), *range(10)]
    days, slots = found.context
    assert (days.name, slots.name) == ("day_of_week", "hour3")
    for action, (day, slot) in zip(actions, found.context_ids.tolist(), strict=True):
        assert (days.labels[day - 1], slots.labels[slot - 1]) == (str(action % 7), str(action % 8))
    for item, row in enumerate(found.features):
        (at,) = row.nonzero()[0]
        assert found.feature_names[at] == f"device={int(found.item_labels[item]) // 4}"
    assert "taken for a household" in found.notes[0]


def test_a_broken_line_costs_its_window_when_it_may_be_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "trn.csv", [list(range(10)), list(range(20, 30))])
    path.write_text(path.read_text().replace("1,4,", "1,four,"))

    with pytest.raises(LineError, match="time is 'four'"):
        load_smartthings([path])

    found = load_smartthings([path], skip_bad_lines=True)
    assert found.cleaning.skipped_lines == 1
    assert [int(label) for label in found.item_labels] == list(range(10))


def test_what_is_no_such_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("user,item\n1,2\n")
    with pytest.raises(FormatError, match="expected the header instance,step"):
        load_smartthings([path])

    write(path, [list(range(9))])
    with pytest.raises(DatasetError, match=r"window 0 has the steps \[0, .*expected 0 to 9"):
        load_smartthings([path])

    with pytest.raises(DatasetError, match="no column 'room'; expected one of day_of_week, hour3"):
        load_smartthings([path], context_columns=("room",))


@pytest.mark.skipif(not FRANCE[0].exists(), reason=f"the SmartThings data is not in {FOLDER}")
def test_the_french_windows_are_logs_of_a_few_hundred_households() -> None:
    found = load_smartthings(FRANCE)
    assert (found.user_count, found.item_count, len(found)) == (345, 62, 7_427)
    assert found.features.sum(axis=1).tolist() == [1.0] * 62
