"""Parameter files: what is written is what the library of the format writes and reads."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from wire.errors import BundleError
from wire.manifest import ParameterSpec, Role
from wire.parameters import map_parameters, write_parameters

SPECS = (
    ParameterSpec("z", Role.DENSE, (3,)),
    ParameterSpec("item", Role.ROWS, (7, 2)),
    ParameterSpec("a.weight", Role.DENSE, (2, 3, 4)),
    ParameterSpec("B", Role.DENSE, (1,)),
)


def test_the_library_writes_the_same_bytes(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "parameters"
    with write_parameters(path, SPECS) as written:
        for spec in SPECS:
            written[spec.name][...] = rng.normal(size=spec.shape)
        values = {name: np.array(tensor) for name, tensor in written.items()}
    assert path.read_bytes() == save({name: values[name] for name in sorted(values)})
    for found in (load_file(path), map_parameters(path)):
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in values.items()
        }


def test_nothing_written_is_zero_and_the_order_of_specs_does_not_matter(tmp_path: Path) -> None:
    for name, specs in (("one", SPECS), ("other", SPECS[::-1])):
        with write_parameters(tmp_path / name, specs):
            pass
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert not any(value.any() for value in map_parameters(tmp_path / "one").values())


def test_a_mapped_file_is_read_only_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "parameters"
    with write_parameters(path, SPECS):
        pass
    with pytest.raises(ValueError, match="read-only"):
        map_parameters(path)["z"][0] = 1.0
    writable = map_parameters(path, writable=True)
    writable["z"][0] = 1.0
    writable["z"].flush()
    assert map_parameters(path)["z"][0] == 1.0


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "parameters"
    with write_parameters(path, SPECS):
        pass
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="does not fit"):
        map_parameters(path)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "parameters"
    with write_parameters(path, [ParameterSpec("item", Role.ROWS, (400_000, 2))]):
        pass
    # There is no hole in it: all that may be written to has its place on the disk.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == path.stat().st_size
    finally:
        os.close(descriptor)
