"""Interactions from files and events, and what is said about broken ones."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.errors import InteractionError
from edge_agent.interactions import (
    ImportReport,
    Interaction,
    check_context,
    import_csv,
    parse_event,
    parse_time,
)
from edge_agent.store import Store
from tests.edge_agent.history_task import CONTEXT, make_context_task
from tests.edge_agent.tiny_task import ITEMS

MANIFEST = make_context_task().manifest

NOW = 1_800_000_000.0


def load(root: Path, text: str | bytes, **options: object) -> tuple[ImportReport, list[int]]:
    path = root / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    store = Store(root / "agent.db")
    try:
        report = import_csv(path, store.add_interactions, now=NOW, **options)  # type: ignore[arg-type]
        return report, store.history().items.tolist()
    finally:
        store.close()


def test_import_twice_is_import_once(tmp_path: Path) -> None:
    text = "user,item,time\n1,5,20\n1,6,10.5\n1,7,2026-01-01T00:00:00+00:00\n"
    report, items = load(tmp_path, text)
    assert (report.added, report.known, report.broken) == (3, 0, 0)
    assert items == [6, 5, 7]
    report, items = load(tmp_path, text)
    assert (report.added, report.known) == (0, 3)
    assert len(items) == 3


def test_other_columns_and_delimiter(tmp_path: Path) -> None:
    text = "\ufeffmovie; when\n3;1\n\n4;2\n"
    options = {"item_column": "movie", "time_column": "when", "delimiter": ";"}
    assert load(tmp_path, text, **options)[1] == [3, 4]


def test_broken_lines_are_named_and_the_others_imported(tmp_path: Path) -> None:
    text = b"item,time\n1,1\nx,2\n3\n-4,4\n99,5\n6,soon\n\xff,7\n8,nan\n9,9\n"
    report, items = load(tmp_path, text, manifest=MANIFEST)
    assert items == [1, 9]
    assert report.broken == 7
    assert [line.number for line in report.examples] == [3, 4, 5, 6, 7, 8, 9]
    reasons = [line.reason for line in report.examples]
    assert reasons[0] == "item is 'x'; expected an integer"
    assert reasons[1] == "the line has 1 columns"
    assert reasons[3] == f"item is 99; the catalogue has {ITEMS} items, 0 to {ITEMS - 1}"
    assert reasons[4] == "time is 'soon'; expected unix seconds or ISO 8601"


def test_many_broken_lines_are_counted_but_not_all_shown(tmp_path: Path) -> None:
    report, _items = load(tmp_path, "item,time\n" + "x,1\n" * 5_000)
    assert report.broken == 5_000
    assert len(report.examples) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thing,time\n1,1\n", "no column 'item'; its header is 'thing, time'"),
        ("item\n1\n", "no column 'time'"),
        ("", "no column 'item'"),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InteractionError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InteractionError, match="No such file"):
        import_csv(tmp_path / "none.csv", lambda _events: 0, now=NOW)


def test_events() -> None:
    event = b'{"item": 12, "at": 3.5, "room": "x"}'
    assert parse_event(event, manifest=None, now=9.0) == Interaction(12, 3.5)
    assert parse_event(b'{"item": 12}', manifest=MANIFEST, now=9.0) == Interaction(12, 9.0)


def test_events_with_context() -> None:
    event = b'{"item": 12, "context": {"daytime": 3, "room": "x"}}'
    assert parse_event(event, manifest=MANIFEST, now=9.0) == (12, 9.0, {"daytime": 3})
    event = b'{"item": 12, "context": {"daytime": 300}}'
    assert parse_event(event, manifest=None, now=9.0) == (12, 9.0, {"daytime": 300})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"hello", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 3_000, "expected JSON"),
        (b"[1]", "expected an object with an integer item"),
        (b'{"item": "12"}', "expected an object with an integer item"),
        (b'{"item": true}', "expected an object with an integer item"),
        (b'{"item": 60}', "the catalogue has 60 items"),
        (b'{"item": 1, "context": [3]}', "expected an object as context"),
        (b'{"item": 1, "context": {"daytime": "3"}}', "expected an integer as context daytime"),
        (b'{"item": 1, "context": {"daytime": true}}', "expected an integer as context daytime"),
        (b'{"item": 1, "context": {"daytime": 4}}', "daytime has 4 values, 0 to 3"),
        (b'{"item": 1, "context": {"weekday": -1}}', "expected an id of at least 0 as weekday"),
        (b'{"item": 99999999999999999999}', "expected an id of at least 0"),
        (b'{"item": 1, "at": "soon"}', "expected unix seconds or ISO 8601"),
        (b'{"item": 1, "at": Infinity}', "expected unix seconds or ISO 8601"),
        (b'{"item": 1, "x": "' + b"x" * 5_000 + b'"}', "at most 4096"),
    ],
)
def test_bad_events_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(InteractionError) as caught:
        parse_event(payload, manifest=MANIFEST, now=0.0)
    assert message in caught.value.reason


def test_times() -> None:
    assert parse_time("12.5", now=NOW) == 12.5
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    assert parse_time(moment.isoformat(), now=NOW) == moment.timestamp()
    assert parse_time("2026-11-01T00:00:00Z", now=NOW) == moment.timestamp()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("-5", "not negative"), ("1700000000000", "not milliseconds"), ("1e300", "not milliseconds")],
)
def test_times_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InteractionError, match=f"time is {text!r}; expected .*{reason}") as caught:
        parse_time(text, now=NOW)
    assert text not in caught.value.reason


def test_a_retained_event_needs_its_time() -> None:
    known = parse_event(b'{"item": 12, "at": 3}', manifest=None, now=NOW, retained=True)
    assert known == Interaction(12, 3.0)
    with pytest.raises(InteractionError, match="retained event without its time"):
        parse_event(b'{"item": 12}', manifest=None, now=NOW, retained=True)


@pytest.mark.parametrize("stray", ['"2,2', '2,"2', "9" * 200_000 + ",2"])
def test_a_bad_line_costs_one_line(tmp_path: Path, stray: str) -> None:
    report, items = load(tmp_path, f"item,time\n1,1\n{stray}\n3,3\n4,4\n")
    assert items[-2:] == [3, 4]
    assert report.broken <= 1
    assert report.added + report.broken == 4


def test_import_with_context(tmp_path: Path) -> None:
    text = "item,daytime,weekday,time\n1,3,7,1\n2,,0,2\n3,4,1,3\n4,noon,1,4\n"
    path = tmp_path / "file.csv"
    path.write_text(text)
    store = Store(tmp_path / "agent.db")
    report = import_csv(
        path,
        store.add_interactions,
        now=NOW,
        context_columns=["weekday", "daytime"],
        manifest=MANIFEST,
    )
    assert store.history(CONTEXT).context.tolist() == [[7, 3], [0, 0]]
    assert [line.reason for line in report.examples] == [
        "context daytime is 4; daytime has 4 values, 0 to 3",
        "daytime is 'noon'; expected an integer",
    ]
    store.close()


def test_a_column_that_is_no_context_field_is_named_before_anything_is_imported(
    tmp_path: Path,
) -> None:
    text = "item,time,mood\n1,1,1\n"
    with pytest.raises(InteractionError, match="no context field 'mood'; it has weekday, daytime"):
        load(tmp_path, text, context_columns=["mood"], manifest=MANIFEST)
    assert load(tmp_path, text, context_columns=["mood"])[1] == [1]


def test_context_out_of_range_names_field_value_and_size() -> None:
    known = {"daytime": 3, "weekday": 0}
    assert check_context(known, MANIFEST) == known
    with pytest.raises(InteractionError) as caught:
        check_context({"daytime": 4}, MANIFEST)
    assert str(caught.value) == "context daytime is 4; daytime has 4 values, 0 to 3"
    assert caught.value.reason == "daytime has 4 values, 0 to 3"
    assert check_context({"daytime": 4}, None) == {"daytime": 4}
    for value in (-1, 1 << 63):
        with pytest.raises(InteractionError, match=f"context mood is {value}; expected an id"):
            check_context({"mood": value}, None)
