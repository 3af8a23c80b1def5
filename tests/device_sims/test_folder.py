"""The folder of a run is never somebody else's."""

from pathlib import Path

import pytest

from device_sims.folder import FolderError, run_folder


def test_what_no_run_wrote_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError, match="no run wrote"), run_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_earlier_run_gives_way(tmp_path: Path) -> None:
    with run_folder(tmp_path / "runs" / "demo") as folder:
        (folder / "devices").mkdir()
        (folder / "devices" / "state").write_text("old")
        (folder / "report.json").write_text("{}")
    with run_folder(folder):
        assert [entry.name for entry in folder.iterdir()] == [".rivulet-run"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        (folder / "ledger").write_text("in use")
        with pytest.raises(FolderError, match="another run"), run_folder(tmp_path):
            pass
        assert (folder / "ledger").read_text() == "in use"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot write"), run_folder(tmp_path / "file" / "run"):
        pass
