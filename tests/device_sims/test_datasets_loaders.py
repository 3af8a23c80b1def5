"""Files as they come: every MovieLens format, any table, and what is wrong with the rest."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sims.datasets import (
    DatasetError,
    FormatError,
    Interactions,
    LineError,
    load_delimited,
    load_frappe,
    load_movielens,
)
from device_sims.datasets.layout import Layout, take_apart

FRAPPE = Path(__file__).parents[3] / "shared" / "data" / "frappe" / "frappe.csv"
RATINGS = [
    (7, 30, "5", 300),
    (7, 10, "3.5", 100),
    (7, 20, "1", 200),
    (2, 10, "4", 100),
    (2, 30, "4", 50),
    (2, 40, "0.5", 70),
    (9, 10, "3", 1),
]
FORMATS = {"u.data": "\t", "ratings.dat": "::", "commas.dat": ",", "ratings.csv": ","}


def write(path: Path, separator: str, *, line_end: str = "\n", header: str = "") -> Path:
    lines = [separator.join(map(str, rating)) for rating in RATINGS]
    path.write_bytes(line_end.join([header, *lines] if header else lines).encode())
    return path


def movielens(folder: Path, name: str, *, line_end: str = "\n") -> Path:
    header = "userId,movieId,rating,timestamp" if name.endswith("csv") else ""
    return write(folder / name, FORMATS[name], line_end=line_end, header=header)


def check_ratings(found: Interactions) -> None:
    assert found.user_labels == ("2", "7")
    assert found.item_labels == ("10", "20", "30", "40")
    np.testing.assert_array_equal(found.users, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.items, [2, 3, 0, 0, 1, 2])
    np.testing.assert_array_equal(found.times, [50, 70, 100, 100, 200, 300])
    assert found.cleaning.dropped_users == 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_movielens_format_gives_the_same_interactions(
    tmp_path: Path, name: str, line_end: str
) -> None:
    check_ratings(load_movielens(movielens(tmp_path, name, line_end=line_end)))


def test_blank_lines_and_a_byte_order_mark_count_for_nothing(tmp_path: Path) -> None:
    path = movielens(tmp_path, "ratings.csv")
    path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes().replace(b"\n", b"\n\n") + b"\n\n")
    check_ratings(load_movielens(path))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("1::2::3", "3 fields, not 4"),
        ("1::2::3::4::5", "5 fields, not 4"),
        ("1::x::3::4", "item is 'x', not a whole number"),
        ("::2::3::4", "user is '', not a whole number"),
        ("-1::2::3::4", "user is '-1', not a whole number"),
        ("1::2::good::4", "rating is 'good', not a number"),
        ("1::2::nan::4", "rating is 'nan', not a number"),
        ("1::2::3::soon", "time is 'soon', not a whole number of 64 bits"),
        ("1::2::3::4.5", "time is '4.5', not a whole number of 64 bits"),
        (f"1::2::3::{2**63}", f"time is '{2**63}', not a whole number of 64 bits"),
        ("1,2,3,4", "1 fields, not 4"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: str, reason: str) -> None:
    path = movielens(tmp_path, "ratings.dat")
    path.write_text(f"{path.read_text()}\n\n{broken}\n3::4::5::6\n")

    with pytest.raises(LineError) as caught:
        load_movielens(path)

    assert caught.value.path == path
    assert caught.value.line_number == len(RATINGS) + 2
    assert caught.value.text == broken
    assert caught.value.reason == reason
    assert str(caught.value) == (
        f"{path}, line {len(RATINGS) + 2}: {broken!r}: {reason}; "
        "expected user::item::rating::time, all numbers"
    )


def test_broken_lines_are_counted_when_they_may_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = movielens(tmp_path, "u.data")
    path.write_text(f"broken\n{path.read_text()}\n1\t2\nbroken too")

    found = load_movielens(path, skip_bad_lines=True)

    check_ratings(found)
    assert found.cleaning.skipped_lines == 3
    assert "3 broken lines skipped" in caplog.text


def test_a_broken_line_far_into_a_file_has_its_number(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    good = [f"{number // 100},{number},3,{number}" for number in range(20_000)]
    path.write_text("\n".join(["userId,movieId,rating,timestamp", *good, "1,2,3", *good]))

    with pytest.raises(LineError) as caught:
        load_movielens(path)
    assert caught.value.line_number == 20_002

    found = load_movielens(path, skip_bad_lines=True)
    assert found.cleaning.skipped_lines == 1
    assert found.cleaning.duplicates == len(found) == 20_000


@given(st.lists(st.text(":1\t,\r", max_size=12), min_size=2, max_size=6))
def test_lines_together_are_refused_exactly_when_one_of_them_is(texts: list[str]) -> None:
    layout = Layout(
        separator="::",
        width=3,
        user=0,
        item=1,
        time=2,
        numeric_labels=True,
        quoted=False,
        header=False,
        expected="",
    )
    lines = [f"{text}\n" for text in texts]
    alone = []
    for line in lines:
        try:
            alone.append(take_apart([line], layout))
        except ValueError:
            with pytest.raises(ValueError, match=r"not|fields"):
                take_apart(lines, layout)
            return

    together = take_apart(lines, layout)

    assert together.users == [columns.users[0] for columns in alone]
    assert together.items == [columns.items[0] for columns in alone]
    assert together.times.tolist() == [columns.times[0] for columns in alone]


@pytest.mark.parametrize("text", ["", "\n\n", "user item rating\n1 2 3\n", "PK\x03\x04\xff\x00"])
def test_an_unknown_format_says_what_was_seen_and_what_is_known(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(FormatError, match="expected a MovieLens ratings file") as caught:
        load_movielens(path)

    seen = "" if not text.strip() else text.splitlines()[0].replace("ÿ", "\\xff")
    assert caught.value.seen == seen
    assert ("is empty" if not seen else f"begins with {seen!r}") in str(caught.value)


def test_a_directory_and_a_missing_file_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is a directory; name the ratings file in it: u\.data"):
        load_movielens(tmp_path)
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        load_movielens(tmp_path / "none")
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        load_delimited(tmp_path)


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_with_any_separator(tmp_path: Path, separator: str) -> None:
    header = separator.join(["user", "item", "rating", "time"])
    found = load_delimited(write(tmp_path / "table.csv", separator, header=header))

    check_ratings(found)
    assert found.name == "table"


def test_a_table_with_its_own_columns_quotes_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "apps.csv"
    path.write_text(
        'note,who,"app, in full"\n'
        '"a ""good"" one",ann,"Maps, offline"\n'
        ",ann,Mail\n"
        ",ann,Zug\n"
        ",ann,Mail\n"
    )

    found = load_delimited(
        path, user_column="who", item_column="app, in full", time_column=None, name="apps"
    )

    assert found.name == "apps"
    assert found.user_labels == ("ann",)
    assert [found.item_labels[item] for item in found.items] == ["Maps, offline", "Mail", "Zug"]
    assert found.cleaning.duplicates == 1


def test_a_header_without_the_columns_is_an_error_that_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", ",", header="user,movie,rating,time")

    with pytest.raises(FormatError, match=r"columns 'user', 'item', 'time'") as caught:
        load_delimited(path)
    assert caught.value.seen == "user,movie,rating,time"

    path.write_text("")
    with pytest.raises(FormatError, match="is empty; expected a header with the columns"):
        load_delimited(path)


def test_a_column_named_twice_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", ",", header="user,item,item,time")
    with pytest.raises(DatasetError, match="names the column 'item' more than once"):
        load_delimited(path)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("ann,tea", "2 fields, not 3"),
        ("ann,  ,1", "item is '  ', not a label"),
        ('ann,"tea,1', "a quoted field is broken"),
        ("ann,tea,noon", "time is 'noon', not a whole number of 64 bits"),
    ],
)
def test_a_broken_line_of_a_table_is_named(tmp_path: Path, broken: str, reason: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"user,item,time\nann,tea,1\n{broken}\nann,milk,2\nann,egg,3\n")

    with pytest.raises(LineError) as caught:
        load_delimited(path)
    assert (caught.value.line_number, caught.value.text) == (3, broken)
    assert caught.value.reason.startswith(reason)
    assert caught.value.expected == "user,item,time, time a whole number"

    assert load_delimited(path, skip_bad_lines=True).cleaning.skipped_lines == 1


def test_labels_that_are_not_utf8_stay_distinct(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"user,item,time\n" + b"".join(b"u,caf%c,1\n" % code for code in b"\xe8\xe9x"))
    assert load_delimited(path).item_count == 3


def test_a_table_with_context_and_features(tmp_path: Path) -> None:
    path = tmp_path / "taps.csv"
    path.write_text(
        "who,what,day,mood,kind\n"
        "ann,tea,monday,,drink\n"
        "ann,egg,tuesday,?,food\n"
        "ann,tea,monday,good, \n"
        "ann,zinc,monday,good,\n"
    )

    found = load_delimited(
        path,
        user_column="who",
        item_column="what",
        time_column=None,
        context_columns=("mood", "day"),
        feature_columns=("kind",),
        unknown_label="?",
    )

    assert [(field.name, field.labels, field.size) for field in found.context] == [
        ("mood", ("good",), 2),
        ("day", ("monday", "tuesday"), 3),
    ]
    # In file order; the second tea counts for nothing.
    assert found.context_ids.tolist() == [[0, 1], [0, 2], [1, 1]]
    assert found.item_labels == ("egg", "tea", "zinc")
    assert found.feature_names == ("kind=drink", "kind=food")
    assert found.features.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert "order of its lines" in found.notes[0]


def test_a_table_may_keep_repeats(tmp_path: Path) -> None:
    path = tmp_path / "taps.csv"
    path.write_text("user,item,time\nann,tea,1\nann,tea,3\nann,egg,2\n")
    found = load_delimited(path, repeats=True)
    assert found.items.tolist() == [1, 0, 1]
    assert (found.repeats, found.notes) == (True, ())


def test_a_missing_context_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "taps.csv"
    path.write_text("user,item,time\nann,tea,1\n")
    with pytest.raises(FormatError, match=r"columns 'user', 'item', 'time', 'day', 'kind'"):
        load_delimited(path, context_columns=("day",), feature_columns=("kind",))


FRAPPE_LINES = """
user item cnt daytime weekday isweekend homework cost weather country city
0 7 1 morning sunday weekend unknown free sunny Spain 0
0 9 31 night monday workday home paid unknown Spain 0
0 7 2 night monday workday home free sunny Spain 0
0 8 1 noon monday workday work free cloudy unknown 1
""".strip().replace(" ", "\t")


def test_frappe_gives_apps_in_situations(tmp_path: Path) -> None:
    path = tmp_path / "frappe.csv"
    path.write_text(FRAPPE_LINES)

    found = load_frappe(path)

    assert found.name == "frappe"
    assert [field.name for field in found.context] == [
        *("daytime", "weekday", "isweekend", "homework", "weather")
    ]
    assert found.context[3].labels == ("home", "work")
    assert found.context_ids.tolist() == [[1, 2, 1, 0, 2], [2, 1, 2, 1, 0], [3, 1, 2, 2, 1]]
    assert [found.item_labels[item] for item in found.items] == ["7", "9", "8"]
    assert found.feature_names == ("cost=free", "cost=paid")
    assert found.features.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert "order of its lines" in found.notes[0]

    again = load_frappe(path, context_columns=("country",), feature_columns=(), repeats=True)
    assert [again.item_labels[item] for item in again.items] == ["7", "9", "7", "8"]
    assert again.context_ids.tolist() == [[1], [1], [1], [0]]
    assert again.feature_names == ()


@pytest.mark.skipif(not FRAPPE.exists(), reason=f"Frappe is not at {FRAPPE}")
def test_frappe_has_its_published_size() -> None:
    found = load_frappe(FRAPPE)
    assert (len(found), found.user_count, found.item_count) == (18_576, 777, 4_051)
    assert found.user_count + found.cleaning.dropped_users == 957
    assert {field.name: field.size for field in found.context} == {
        "daytime": 8,
        "weekday": 8,
        "isweekend": 3,
        "homework": 3,
        "weather": 9,
    }
    assert (found.features.sum(axis=1) == 1).all()
