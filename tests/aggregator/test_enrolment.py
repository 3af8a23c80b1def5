"""The file of enrolled devices: what it may hold, and how it changes under a running service."""

import os
from pathlib import Path

import pytest

from aggregator.enrolment import Enrolment, EnrolmentError


def change(file: Path, text: str) -> None:
    """Write it with another time than before, however coarse the file system's clock is."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_ids_comments_and_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "devices"
    file.write_text("# our phones\nphone-1\n\n  phone-2  # Ada's\n")
    assert Enrolment(file).devices() == {"phone-1", "phone-2"}


def test_a_change_counts_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "devices"
    change(file, "a\n")
    enrolment = Enrolment(file)
    change(file, "a\nb\n")
    assert enrolment.devices() == {"a", "b"}


@pytest.mark.parametrize("slip", ["a b\n", "A\n", "x/y\n", None])
def test_a_slip_leaves_the_devices_as_they_were(tmp_path: Path, slip: str | None) -> None:
    file = tmp_path / "devices"
    change(file, "a\n")
    enrolment = Enrolment(file)
    if slip is None:
        file.unlink()
    else:
        change(file, slip)
    assert enrolment.devices() == {"a"}
    change(file, "b\n")
    assert enrolment.devices() == {"b"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"good\nNot Good\n", "line 2"), (b"\xff\xfe", "cannot read"), (None, "cannot read")],
)
def test_a_file_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "devices"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EnrolmentError, match=expected):
        Enrolment(file)
