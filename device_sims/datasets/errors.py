"""What can be wrong with a data file, each error carrying what is needed to find and mend it."""

from pathlib import Path

__all__ = ["DatasetError", "FormatError", "LineError"]

_SHOWN_CHARACTERS = 120


class DatasetError(Exception):
    """A data set cannot be loaded or split; the message names the file or set, and the cause."""


class FormatError(DatasetError):
    """The first lines of a file fit no known format.

    Attributes:
        path: The file.
        seen: Its first line that is not blank, without the line end; empty for an empty file.
        expected: The formats that would have been read, in words.
    """

    def __init__(self, path: Path, *, seen: str, expected: str) -> None:
        self.path = path
        self.seen = seen
        self.expected = expected
        found = f"begins with {_shown(seen)}" if seen else "is empty"
        super().__init__(f"{path} {found}; expected {expected}")


class LineError(DatasetError):
    """One line of a file is broken.

    Attributes:
        path: The file.
        line_number: Counted from 1, header and blank lines included.
        text: The line without its line end.
        reason: What is wrong with it.
        expected: What a good line looks like, in words.
    """

    def __init__(
        self, path: Path, *, line_number: int, text: str, reason: str, expected: str
    ) -> None:
        self.path = path
        self.line_number = line_number
        self.text = text
        self.reason = reason
        self.expected = expected
        super().__init__(
            f"{path}, line {line_number}: {_shown(text)}: {reason}; expected {expected}"
        )


def _shown(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return repr(text)
    return f"{text[:_SHOWN_CHARACTERS]!r} (and {len(text) - _SHOWN_CHARACTERS} more characters)"
