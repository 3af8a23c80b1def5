"""Parsers for settings: each takes a value of a TOML file or the text of a variable.

What they refuse they refuse with a ValueError whose text says what was expected.
"""

import os
from pathlib import Path
from typing import Any

__all__ = [
    "boolean",
    "file",
    "integer",
    "natural",
    "number",
    "path",
    "paths",
    "port",
    "seconds",
    "text",
]


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def integer(value: Any) -> int:
    """A whole number, or its text."""
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def natural(value: Any) -> int:
    """A whole number, at least 0."""
    found = integer(value)
    if found < 0:
        raise ValueError("a whole number of at least 0")
    return found


def number(value: Any) -> float:
    """A number, or its text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        return float(value)
    except ValueError:
        raise ValueError("a number") from None


def port(value: Any) -> int:
    """A TCP port; 0 for any free one."""
    found = integer(value)
    if not 0 <= found <= 65_535:
        raise ValueError("a port from 0 to 65535")
    return found


def seconds(value: Any) -> float:
    """Seconds, at most an hour."""
    duration_s = number(value)
    if not 0.0 <= duration_s <= 3600.0:
        raise ValueError("seconds from 0 to 3600")
    return duration_s


def boolean(value: Any) -> bool:
    """A TOML boolean, or its text."""
    known = {True: True, False: False, "true": True, "false": False}
    if not isinstance(value, bool | str) or value not in known:
        raise ValueError("true or false")
    return known[value]


def path(value: Any) -> Path:
    """A path."""
    return Path(text(str(value)))


def paths(value: Any) -> tuple[Path, ...]:
    """A list of paths, or their text with the separator of the PATH variable."""
    entries = value.split(os.pathsep) if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise ValueError("a list of paths")
    return tuple(path(entry) for entry in entries)


def file(value: Any) -> Path:
    """The path of a file that exists."""
    found = path(value)
    if not found.is_file():
        raise ValueError("the path of a file that exists")
    return found
