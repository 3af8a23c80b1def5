"""Agents of one process share the map of a file, as long as one of them has it."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from edge_agent.task import map_checked
from wire.manifest import ParameterSpec, Role
from wire.parameters import write_parameters

SPECS = (ParameterSpec("a", Role.ROWS, (3, 2)), ParameterSpec("b", Role.DENSE, (4,)))


def write(path: Path, value: float) -> Path:
    with write_parameters(path, SPECS) as state:
        for tensor in state.values():
            tensor[:] = value
    return path


def test_a_file_is_mapped_once_and_read_only(tmp_path: Path) -> None:
    path = write(tmp_path / "one", 1.0)
    first, second = map_checked(path, SPECS), map_checked(path, SPECS)
    part = map_checked(path, SPECS[1:])
    assert first.keys() == second.keys() == {"a", "b"}
    assert all(first[name] is second[name] for name in first)
    assert part == {"b": first["b"]}
    with pytest.raises(ValueError, match="read-only"):
        first["a"][0] = 2.0


def test_another_file_of_the_same_name_is_another_map(tmp_path: Path) -> None:
    path = write(tmp_path / "one", 1.0)
    before = map_checked(path, SPECS)
    write(tmp_path / "two", 2.0).replace(path)
    after = map_checked(path, SPECS)
    assert before["b"].tolist() == [1.0] * 4
    assert after["b"].tolist() == [2.0] * 4
    path.unlink()
    with pytest.raises(TransientDownloadError, match="cannot read one: No such file"):
        map_checked(path, SPECS)


def test_a_map_goes_with_the_last_that_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "one", 1.0)

    def is_mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    found = map_checked(path, SPECS)
    row = found["a"][1:2]
    del found
    assert is_mapped()
    assert np.array_equal(row, [[1.0, 1.0]])
    del row
    assert not is_mapped()


def test_what_does_not_fit_is_refused_though_the_file_is_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "one", 1.0)
    found = map_checked(path, SPECS)
    wider = (ParameterSpec("a", Role.ROWS, (3, 3)),)
    with pytest.raises(PermanentDownloadError, match=r"one lacks a in the manifest's shape"):
        map_checked(path, wider)
    assert found["a"].shape == (3, 2)
    os.truncate(path, 10)
    with pytest.raises(PermanentDownloadError, match="one"):
        map_checked(path, SPECS)
