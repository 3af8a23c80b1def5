"""Pools of runs: everything is done once, failures are told, and nothing is left behind."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sims.comparison.pool import Done, Failed, LocalPool, Moved, News
from tests.device_sims.comparison.works import Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "under-way"


def test_everything_is_done_once_in_processes_of_their_own(folder: Path) -> None:
    works = [Task(f"w{n}", number=n) for n in range(5)]
    news = list(LocalPool(2, folder).run(works))
    done = [one for one in news if isinstance(one, Done)]
    assert sorted((one.key, one.result["number"]) for one in done) == [
        (f"w{n}", 2 * n) for n in range(5)
    ]
    assert os.getpid() not in {one.result["process"] for one in done}
    assert len({one.result["process"] for one in done}) == 5
    assert Counter(type(one) for one in news) == {Done: 5, Moved: 5}
    assert not folder.exists()


def test_work_is_asked_for_only_when_there_is_room(folder: Path) -> None:
    asked = []

    def works() -> Iterator[Task]:
        for n in range(4):
            asked.append(n)
            yield Task(f"w{n}")

    done = 0
    for one in LocalPool(1, folder).run(works()):
        done += isinstance(one, Done)
        assert len(asked) <= done + 1
    assert asked == [0, 1, 2, 3]


def test_what_fails_is_told_and_the_rest_goes_on(folder: Path) -> None:
    works = [Task("a", "fail"), Task("b", "die"), Task("c"), Task("d", "exit")]
    ended = {one.key: one for one in LocalPool(1, folder).run(works) if not isinstance(one, Moved)}
    assert isinstance(ended["c"], Done)
    failed, died, gone = ended["a"], ended["b"], ended["d"]
    assert isinstance(failed, Failed)
    assert failed.error == "ValueError: it does not fit"
    assert "Traceback" in failed.trace
    assert isinstance(died, Failed)
    assert died.error.startswith("its process was killed, perhaps for want of memory; the same")
    assert isinstance(gone, Failed)
    assert gone.error.startswith("its process ended with code 3; the same command")


def test_closing_it_stops_what_is_under_way(folder: Path) -> None:
    with closing(LocalPool(2, folder).run([Task("a", "wait"), Task("b", "wait")])) as news:
        assert isinstance(next(news), Moved)
        assert folder.is_dir()
    assert not folder.exists()


def test_what_has_ended_when_ctrl_c_comes_is_told_before_it_goes_on(folder: Path) -> None:
    def works() -> Iterator[Task]:
        yield Task("ends")
        yield Task("goes on", "wait")
        # Meanwhile the next task is made, which takes its time.
        while len(multiprocessing.active_children()) > 1:
            time.sleep(0.05)
        raise KeyboardInterrupt

    told = list[News]()
    with pytest.raises(KeyboardInterrupt):
        told.extend(LocalPool(3, folder).run(works()))
    assert [one.key for one in told if isinstance(one, Done)] == ["ends"]
    assert not folder.exists()
