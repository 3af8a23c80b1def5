"""What a comparison writes: `report.json` for programs, `report.html` for people, and Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_sims.comparison.page import render, target
from device_sims.comparison.tables import markdown, participation, results
from wire.errors import WireError

__all__ = ["InsertError", "as_markdown", "check_place", "insert", "write_report"]

MOST_FOLDED = 12


class InsertError(WireError):
    """A Markdown file has no place for a table; the message says what it must have."""


def write_report(document: Mapping[str, Any], folder: Path, *, title: str) -> None:
    """Write `report.json`, `report.md` and `report.html` into a folder."""
    text = json.dumps(document, indent=1) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    (folder / "report.md").write_text(as_markdown(document), encoding="utf-8")
    (folder / "report.html").write_text(render(document, title=title), encoding="utf-8")


def as_markdown(document: Mapping[str, Any]) -> str:
    """The tables of a report; with many scenarios who took part is in its other forms only."""
    parts = []
    for panel in document["panels"]:
        facts = ", ".join(f"{name}: {value}" for name, value in panel["facts"].items())
        seeds = sorted({seed for entry in panel["scenarios"] for seed in entry["seeds"]})
        said = f"**{panel['name']}** ({facts}; seeds {', '.join(map(str, seeds))}). {target(panel)}"
        parts += [said + "\n", markdown(results(panel))]
        took_part = participation(panel)
        if took_part is not None and len(panel["scenarios"]) <= MOST_FOLDED:
            # Six rows and more for each scenario: folded away, where Markdown is shown as HTML.
            summary = "<details><summary>Who took part, and what it got</summary>"
            parts.append(f"{summary}\n\n{markdown(took_part)}\n</details>\n")
    return "\n".join(parts)


def insert(text: str, name: str, file: Path) -> None:
    """Put Markdown between `<!-- compare NAME -->` and `<!-- end NAME -->` of a file.

    Raises:
        InsertError: the file has no such lines.
        OSError: it cannot be read or written.
    """
    head, tail = check_place(name, file)
    file.write_text(f"{head}\n\n{text}\n{tail}", encoding="utf-8")


def check_place(name: str, file: Path) -> tuple[str, str]:
    """What stands in a file up to the place for some tables, and from its end on.

    Raises:
        InsertError: the file has no such lines.
        OSError: it cannot be read.
    """
    begin, end = f"<!-- compare {name} -->", f"<!-- end {name} -->"
    head, found, rest = file.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise InsertError(f"{file} has no line {begin} with a line {end} after it")
    return head + begin, end + tail
