"""Flat settings from a TOML document and the environment, and parsers that say what they expect."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from edge_agent.errors import ConfigError

__all__ = ["Settings", "boolean", "choice", "count", "file", "folder", "text", "url"]

T = TypeVar("T")


class Settings:
    """Raw values by dotted key; every key is known, and every refusal names its key.

    Args:
        document: a decoded TOML document; tables become dotted keys (``tls.ca``).
        environment: all variables of the process; those that begin with ``prefix`` count, and
            override the document: ``prefix + "TLS_CA"`` is ``tls.ca``.
        prefix: beginning of the variables' names.
        keys: every key there is.
        secrets: keys whose values no message may show.
        ignored: variables with the prefix that are no settings.

    Raises:
        ConfigError: an unknown key or variable.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        prefix: str,
        keys: Iterable[str],
        secrets: Iterable[str] = (),
        ignored: Iterable[str] = (),
    ) -> None:
        self._keys, self._secrets, self._prefix = tuple(keys), frozenset(secrets), prefix
        self._values = dict(_flatten(document))
        for key in self._values:
            if key not in self._keys:
                raise ConfigError(f"unknown key {key!r}; the keys are {', '.join(self._keys)}")
        by_variable = {self.variable(key): key for key in self._keys}
        for name, value in environment.items():
            if not name.startswith(prefix) or name in ignored:
                continue
            if name not in by_variable:
                raise ConfigError(
                    f"unknown variable {name}; the variables are {', '.join(by_variable)}"
                )
            self._values[by_variable[name]] = value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def variable(self, key: str) -> str:
        """The environment variable that overrides a key."""
        return self._prefix + key.upper().replace(".", "_")

    def optional(self, key: str, parse: Callable[[Any], T]) -> T | None:
        """The parsed value, or None where the key is not set.

        Raises:
            ConfigError: the parser refused the value.
        """
        if key not in self._values:
            return None
        value = self._values[key]
        try:
            return parse(value)
        except ValueError as error:
            shown = "(hidden)" if key in self._secrets else f"{value!r:.120}"
            raise ConfigError(f"{key} is {shown}; expected {error}") from None

    def required(self, key: str, parse: Callable[[Any], T]) -> T:
        """The parsed value.

        Raises:
            ConfigError: the key is not set, or the parser refused the value.
        """
        value = self.optional(key, parse)
        if value is None:
            raise ConfigError(f"{key} is missing; set it in the file or as {self.variable(key)}")
        return value


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def boolean(value: Any) -> bool:
    """A TOML boolean, or its text in a variable."""
    known = {True: True, False: False, "true": True, "false": False}
    if not isinstance(value, bool | str) or value not in known:
        raise ValueError("true or false")
    return known[value]


def count(value: Any) -> int:
    """A whole number of at least 1, as an integer or as its text in a variable."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def file(value: Any) -> Path:
    """Path of a file that is there."""
    path = Path(text(value))
    if not path.is_file():
        raise ValueError("the path of a file that exists")
    return path


def folder(value: Any) -> Path:
    """Path of a folder, which need not be there; ``~`` is the home folder."""
    try:
        return Path(text(value)).expanduser()
    except RuntimeError:
        raise ValueError("the path of a folder in a home that exists") from None


def choice(*allowed: str) -> Callable[[Any], str]:
    """A parser that takes one of some texts."""

    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text(value)

    return parse


def url(*schemes: str, expected: str) -> Callable[[Any], SplitResult]:
    """A parser for a URL with a host, one of some schemes, and no credentials in it."""

    def parse(value: Any) -> SplitResult:
        try:
            parts = urlsplit(text(value))
            port = parts.port
        except ValueError:
            raise ValueError(expected) from None
        if parts.scheme not in schemes or not parts.hostname or port == 0:
            raise ValueError(expected)
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"{expected}, without user, query or fragment")
        return parts

    return parse


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
