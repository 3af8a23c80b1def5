"""Checks on decoded JSON and CBOR maps: each names the key, what stands there and what should."""

from collections.abc import Mapping
from typing import Any

from wire.errors import WireError

__all__ = ["Fields"]

MAX_SHOWN_BITS = 256
MAX_SHOWN_CHARACTERS = 80


class Fields:
    """Typed access to one decoded map, refusing what is missing, unknown or of the wrong type.

    Args:
        values: the decoded map.
        where: how an error names the map, for example ``manifest.training``.
        error: the type of error to raise.
    """

    def __init__(self, values: object, *, where: str, error: type[WireError]) -> None:
        self._where, self._error = where, error
        if not isinstance(values, Mapping):
            raise self.refusal("", values, "a map")
        self._left: dict[Any, Any] = dict(values)

    def refusal(self, key: object, value: object, expected: str) -> WireError:
        """The error for one key, ready to raise."""
        name = f"{self._where}.{key}" if key != "" else self._where
        return self._error(f"{name} is {_shown(value)}; expected {expected}")

    def take(self, key: object) -> Any:
        """The raw value of a key, which must be there."""
        if key not in self._left:
            raise self._error(f"{self._where}.{key} is missing")
        return self._left.pop(key)

    def integer(self, key: object, low: int, high: int) -> int:
        """An int in [low, high]."""
        value = self.take(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refusal(key, value, f"an integer from {low} to {high}")
        return value

    def number(self, key: object, low: float, high: float) -> float:
        """A finite float in [low, high]."""
        value = self.take(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # The comparison also refuses NaN, and integers that are too large for a float.
        if not number or not low <= value <= high:
            raise self.refusal(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def boolean(self, key: object) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise self.refusal(key, value, "true or false")
        return value

    def text(self, key: object, most: int = 200) -> str:
        """A non-empty string of at most ``most`` printable characters."""
        value = self.take(key)
        if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
            raise self.refusal(key, value, f"a text of 1 to {most} printable characters")
        return value

    def octets(self, key: object, length: int | None = None) -> bytes:
        """A byte string, of exactly ``length`` bytes where one is given."""
        value = self.take(key)
        if not isinstance(value, bytes) or (length is not None and len(value) != length):
            expected = "a byte string" if length is None else f"a byte string of {length} bytes"
            raise self.refusal(key, value, expected)
        return value

    def choice(self, key: object, allowed: tuple[Any, ...]) -> Any:
        """One of the allowed values."""
        value = self.take(key)
        # Floats and CBOR's simple values can equal an integer, but must not stand for it.
        if type(value) is bool or not isinstance(value, int | str) or value not in allowed:
            raise self.refusal(key, value, "one of " + ", ".join(map(str, allowed)))
        return value

    def array(self, key: object, most: int) -> list[Any]:
        """A list of at most ``most`` entries."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) > most:
            raise self.refusal(key, value, f"a list of at most {most} entries")
        return value

    def done(self) -> None:
        """Refuse what was not asked for: a misspelt key must not be silently ignored."""
        if self._left:
            raise self._error(f"{self._where} has an unknown key {_shown(next(iter(self._left)))}")


def _shown(value: object) -> str:
    """A value as an error shows it. Python refuses to print an integer of many digits."""
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        return repr(value)[:MAX_SHOWN_CHARACTERS]
    except ValueError:
        return f"a {type(value).__name__} that cannot be shown"
