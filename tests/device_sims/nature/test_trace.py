"""A trace file is read whole, or refused with its line."""

from pathlib import Path

import pytest

from device_sims.datasets import DatasetError
from device_sims.nature import read_trace

HEADER = "device,from_s,to_s,update_s,up_bytes_s,down_bytes_s\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_devices_come_in_the_order_of_their_first_lines_and_stretches_in_that_of_time(
    tmp_path: Path,
) -> None:
    text = HEADER + "b,5,9,,,\n\na,0,1,2,3,4\nb,0,5,,,\n"
    b, a = read_trace(write(tmp_path, text))
    assert [(one.from_s, one.to_s) for one in b] == [(0.0, 5.0), (5.0, 9.0)]
    assert a[0].given == {"update_s": 2.0, "up_bytes_s": 3.0, "down_bytes_s": 4.0}
    assert b[0].given == {}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_fewer_columns(tmp_path: Path, separator: str) -> None:
    text = "to_s,device,from_s\n9,x,1\n".replace(",", separator)
    ((stretch,),) = read_trace(write(tmp_path, text))
    assert (stretch.from_s, stretch.to_s) == (1.0, 9.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; expected a header with the columns device,from_s,to_s"),
        ("device,from_s\n", "begins with 'device,from_s'; expected a header"),
        ("device,from_s,to_s,speed\n", "expected a header with the columns"),
        ("device,from_s,to_s,to_s\n", "expected a header with the columns"),
        (HEADER, "has no stretches below its header"),
        (HEADER + "a,0,1\n", "line 2: 'a,0,1': 3 fields, and the header has 6"),
        (HEADER + "a,0,1,,,\n,0,1,,,\n", "line 3: .*the device is missing"),
        (HEADER + "\na,x,1,,,\n", "line 3: .*from_s is 'x', no number from 0"),
        (HEADER + "a,-1,1,,,\n", "line 2: .*from_s is '-1', no number from 0"),
        (HEADER + "a,0,nan,,,\n", "line 2: .*to_s is 'nan', no number"),
        (HEADER + "a,0,inf,,,\n", "line 2: .*to_s is 'inf', no number"),
        (HEADER + "a,5,5,,,\n", "line 2: .*to_s is 5, which is not after from_s, 5"),
        (HEADER + "a,0,5,0,,\n", "line 2: .*update_s is 0, and must be above 0"),
        (HEADER + "a,0,5,,fast,\n", "line 2: .*up_bytes_s is 'fast', no number"),
        (HEADER + "a,4,9,,,\nb,0,5,,,\na,0,5,,,\n", "line 2: .*overlaps another .*, 0 to 5"),
    ],
)
def test_what_is_broken_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        read_trace(write(tmp_path, text))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.csv cannot be read: No such file"):
        read_trace(tmp_path / "nowhere.csv")
    path = tmp_path / "trace.csv"
    path.write_bytes(b"device,from_s,to_s\n\xff,0,1\n")
    with pytest.raises(DatasetError, match="it is no UTF-8 text"):
        read_trace(path)
