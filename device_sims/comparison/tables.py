"""The report's numbers as rows of text, for a terminal, for Markdown and for the page alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Table", "differences", "markdown", "participation", "results"]

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns.

    Attributes:
        header: of each column.
        rows: the cells; the first of a row says what it is about.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def results(panel: Entry) -> Table:
    """A row for each scenario, and below them what they are held against.

    Columns in which nothing would stand are left out.
    """
    rows = [
        {title: cell(entry) for title, cell in _COLUMNS.items()} for entry in panel["scenarios"]
    ]
    for name, quality in panel["baselines"].items():
        rows.append(
            {
                "scenario": name.replace("_", " "),
                "NDCG@10": _digits(quality["ndcg_at_10"]),
                "HR@10": _digits(quality["hr_at_10"]),
            }
        )
    if panel["centralised"]:
        found = panel["centralised"]
        rows.append(
            {
                "scenario": "centralised",
                "NDCG@10": _interval(found["ndcg_at_10"]),
                "HR@10": _interval(found["hr_at_10"]),
            }
        )
    header = [title for title in _COLUMNS if any(row.get(title) for row in rows)]
    return Table(header, [[row.get(title) or "" for title in header] for row in rows])


def participation(panel: Entry) -> Table | None:
    """Who took part and what it got, a row for each scenario and group; None if that is unknown."""
    rows = [
        [
            entry["name"],
            group["name"],
            f"{group['devices']['mean']:,.0f}",
            _interval(group["updates"], "{:,.0f}"),
            _digits(_ratio(group["updates"]["mean"], group["devices"]["mean"]), "{:,.1f}"),
            _interval(group["ndcg_at_10"]),
            _interval(group["hr_at_10"]),
        ]
        for entry in panel["scenarios"]
        for group in entry["groups"]
    ]
    header = ["scenario", "devices", "count", "updates", "updates a device", "NDCG@10", "HR@10"]
    return Table(header, rows) if rows else None


def differences(panel: Entry) -> Table | None:
    """In which settings the scenarios differ; None if there is nothing to compare."""
    names = [entry["name"] for entry in panel["scenarios"]]
    rows = [[key, *map(_value, values)] for key, values in panel["differences"].items()]
    return Table(["setting", *names], rows) if rows and len(names) > 1 else None


def markdown(table: Table) -> str:
    """A table in Markdown."""
    lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _digits(value: float, form: str = "{:.3f}") -> str:
    text = form.format(value)
    return text[1:] if text.startswith("0.") else text


def _interval(found: Entry, form: str = "{:.3f}") -> str:
    """A mean, and how far it is to the ends of its interval."""
    mean = _digits(found["mean"], form)
    if found["low"] is None:
        return mean
    return f"{mean} ± {_digits((found['high'] - found['low']) / 2.0, form)}"


def _range(found: Entry, form: str) -> str:
    """A mean, and the ends of its interval: of ratios, which lie unevenly about it."""
    mean = form.format(found["mean"])
    if found["low"] is None:
        return mean
    return f"{mean} ({form.format(found['low'])} to {form.format(found['high'])})"


def _reached(axis: str, unit: float) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = entry["to_target"].get(axis)
        if found is None:
            return ""
        if found["spent"] is None:
            return f"reached by {found['reached_by']} of {found['of']}"
        scaled = {
            key: None if value is None else value / unit
            for key, value in found["spent"].items()
            if key != "values"
        }
        return _interval(scaled, "{:.3g}")

    return cell


def _times(entry: Entry) -> str:
    found = entry["to_target"]["hours"]["times_first"]
    if found is None:
        return ""
    # Seed by seed the first scenario is once itself.
    return "1" if set(found["values"]) == {1.0} else _range(found, "{:.3g}")


def _group(which: str) -> Callable[[Entry], str]:
    def cell(entry: Entry) -> str:
        found = [group for group in entry["groups"] if group["name"] == which]
        return _interval(found[0]["ndcg_at_10"]) if found else ""

    return cell


def _bytes_an_update(entry: Entry) -> str:
    return f"{_ratio(entry['spent']['bytes_up']['mean'], entry['updates']['mean']):,.0f}"


def _ratio(above: float, below: float) -> float:
    return above / below if below else 0.0


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


_COLUMNS: Mapping[str, Callable[[Entry], str]] = {
    "scenario": lambda entry: str(entry["name"]),
    "NDCG@10": lambda entry: _interval(entry["picked"]["ndcg_at_10"]),
    "HR@10": lambda entry: _interval(entry["picked"]["hr_at_10"]),
    "NDCG@10 at the end": lambda entry: _interval(entry["end"]["ndcg_at_10"]),
    "hours to target": _reached("hours", 1.0),
    "times the first's": _times,
    "MB up to target": _reached("bytes_up", 1e6),
    "kJ to target": _reached("energy_j", 1e3),
    "bytes up an update": _bytes_an_update,
    "updates": lambda entry: f"{entry['updates']['mean']:,.0f}",
    "staleness": lambda e: f"{e['staleness']['mean']:.1f}, at most {e['staleness']['max']}",
    "NDCG@10, fast devices": _group("fast"),
    "NDCG@10, slow devices": _group("slow"),
    "ER@10": lambda e: "" if e["exposure"] is None else _interval(e["exposure"]),
    "broken": lambda entry: ", ".join(entry["broken"]),
}
