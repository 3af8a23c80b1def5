"""A second decoder, which follows firmware_notes/wire-format.md; of the standard library alone.

It is simple and slow on purpose: a stream is a text of "0" and "1", and a matrix is a list of
lists. It shares no code with ``wire``, so that a mistake of either shows as a difference. The
numbers in brackets are sections of the document.
"""

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RefusedError", "Spec", "Tensor", "decode_delta", "decode_message"]

Spec = tuple[str, str, tuple[int, ...]]
"""Name, role (rows or dense) and shape of a tensor."""
Matrix = list[list[float]]
Tensor = tuple[list[int], Matrix]
"""Numbers of rows, and the rows; a dense tensor has all of them."""
Check = Callable[[Any], bool]

MALFORMED, OVERSIZE = "malformed", "oversize"
WRONG_SHAPE, NOT_FINITE = "wrong-shape", "not-finite"

NOTHING, RAW, HALF, LEVELS, SCALED, FACTORS, DRAWN_ROWS, DRAWN_ENTRIES = range(8)
SPARSE_CODING, GOLOMB_DIVISORS = 8, (2, 3, 4, 6, 8, 12, 16)
FRACTIONS = tuple(n / 2**25 for n in (0x2000000, 0x1AE89FA, 0x16A09E6, 0x1306FE0))
BUDGET, MOST_DRAWN = 1 << 23, 1 << 20
WORD = (1 << 64) - 1

MOST_BYTES = 900_000
COUNTER = 2**53 - 1


class RefusedError(ValueError):
    """What was sent is not what the format allows; ``name`` says which refusal it is."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


class Bits:
    """The stream [3.1] and the codes that it is made of [3.2 to 3.5]."""

    def __init__(self, raw: bytes) -> None:
        self._text = "".join(f"{octet:08b}" for octet in raw)
        self._at = 0

    def take(self, count: int) -> str:
        if count > len(self._text) - self._at:
            raise RefusedError(WRONG_SHAPE, "the stream ends early")
        self._at += count
        return self._text[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int("0" + self.take(width), 2)

    def count(self, most: int) -> int:
        length = self.number(most.bit_length().bit_length())
        if length > most.bit_length():
            raise RefusedError(WRONG_SHAPE, "a count is too long")
        value = (1 << (length - 1)) + self.number(length - 1) if length else 0
        if value > most:
            raise RefusedError(WRONG_SHAPE, "a count is too large")
        return value

    def unary(self) -> int:
        end = self._text.find("1", self._at)
        if end < 0:
            raise RefusedError(WRONG_SHAPE, "the stream ends early")
        return len(self.take(end + 1 - self._at)) - 1

    def golomb(self, count: int, divisor: int) -> list[int]:
        quotients = [self.unary() for _ in range(count)]
        if divisor == 1:
            return quotients
        width = (divisor - 1).bit_length() - 1
        short = (1 << (width + 1)) - divisor
        heads = [self.number(width) for _ in range(count)]
        tails = [head if head < short else 2 * head + self.number(1) - short for head in heads]
        return [q * divisor + tail for q, tail in zip(quotients, tails, strict=True)]

    def index_set(self, universe: int, most: int) -> list[int]:
        count = self.count(universe)
        if count > most:
            raise RefusedError(WRONG_SHAPE, "a set is larger than the budget")
        inverted = 2 * count > universe
        listed = self._increasing(universe - count if inverted else count, universe)
        if not inverted:
            return listed
        missing = set(listed)
        return [n for n in range(universe) if n not in missing]

    def _increasing(self, count: int, universe: int) -> list[int]:
        if not count:
            return []
        divisor = max(1, ((2 * universe - count) * 355 + 512 * count) // (1024 * count))
        gaps = self.golomb(count, divisor)
        found = [n - 1 for n in itertools.accumulate(gap + 1 for gap in gaps)]
        if found[-1] >= universe:
            raise RefusedError(WRONG_SHAPE, "an index is out of range")
        return found

    def codes(self, count: int) -> tuple[int, list[int]]:
        coding = self.number(4)
        if coding < SPARSE_CODING:
            return coding, [self.number(coding) for _ in range(count)]
        if coding > SPARSE_CODING:
            return coding, self.golomb(count, GOLOMB_DIVISORS[coding - SPARSE_CODING - 1])
        codes = [0] * count
        for place in self.index_set(count, count):
            codes[place] = 1 + self.unary()
        return coding, codes

    def scale(self) -> float:
        code = self.number(13)
        if code > 0x1FDF:
            raise RefusedError(NOT_FINITE, "a scale is not finite")
        return _unpacked(">f", code << 18)

    def finish(self) -> None:
        left = self._text[self._at :]
        if len(left) >= 8 or "1" in left:
            raise RefusedError(WRONG_SHAPE, "trailing bytes, or padding that is not zero")


@dataclass(frozen=True)
class Levels:
    """A quantised matrix [3.6]: the places of its entries, and their values in float64."""

    rows: int
    width: int
    places: list[int]
    values: list[float]

    @classmethod
    def read(cls, bits: Bits, rows: int, width: int) -> "Levels":
        places = bits.index_set(rows * width, rows * width)
        if bits.number(1):
            negative = set(bits.index_set(len(places), len(places)))
        else:
            negative = {n for n, bit in enumerate(bits.take(len(places))) if bit == "1"}
        base = bits.scale()
        coding, codes = bits.codes(len(places))
        step = bits.scale() if coding else 0.0
        values = [base + code * step for code in codes]
        signed = [-value if n in negative else value for n, value in enumerate(values)]
        return cls(rows, width, places, signed)

    def matrix(self, row_scales: Sequence[float] | None = None) -> Matrix:
        """Rounded to float32, after each row was multiplied by its scale [3.8]."""
        matrix = [[0.0] * self.width for _ in range(self.rows)]
        for place, value in zip(self.places, self.values, strict=True):
            row, column = divmod(place, self.width)
            matrix[row][column] = _narrowed(value * row_scales[row] if row_scales else value)
        return matrix


def decode_delta(payload: bytes, specs: Sequence[Spec]) -> dict[str, Tensor]:
    """The tensors of an encoded delta [3.10]; raises RefusedError."""
    bits, budget = Bits(payload), BUDGET
    if bits.number(4) != 1:
        raise RefusedError(WRONG_SHAPE, "another version of the format")
    delta = {}
    for name, role, shape in specs:
        delta[name], cost = _tensor(bits, role == "dense", shape, budget)
        budget -= cost
    bits.finish()
    return delta


def _tensor(bits: Bits, dense: bool, shape: tuple[int, ...], budget: int) -> tuple[Tensor, int]:
    height, width = shape[0], math.prod(shape[1:])
    kind = bits.number(3)
    drawn: list[int] = []
    if kind in (DRAWN_ROWS, DRAWN_ENTRIES):
        drawn = _drawn(bits, height * width if kind == DRAWN_ENTRIES else height, budget)
    places, block = _block(bits, kind, drawn, (height, width), budget)
    entries = list(_entries(places, block, width, single=kind == DRAWN_ENTRIES))
    rows = sorted({place // width for place, _ in entries})
    cost = len(drawn) + width * (height if dense else len(rows))
    if cost > budget:
        raise RefusedError(WRONG_SHAPE, "a tensor is larger than the budget")
    return _filled(list(range(height)) if dense else rows, entries, width), cost


def _drawn(bits: Bits, universe: int, budget: int) -> list[int]:
    seed, count = bits.number(32), bits.count(universe)
    if not 0 < count <= min(MOST_DRAWN, budget):
        raise RefusedError(WRONG_SHAPE, "it draws no places, or too many")
    return _places(seed, count, universe)


def _places(seed: int, count: int, universe: int) -> list[int]:
    """Some of the places 0 to ``universe`` - 1, drawn from a seed [3.9]."""
    places = []
    for i in range(count):
        first, last = i * universe // count, (i + 1) * universe // count
        z = seed + (i + 1) * 0x9E3779B97F4A7C15 & WORD
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
        places.append(first + (z ^ (z >> 31)) % (last - first))
    return places


def _block(
    bits: Bits, kind: int, drawn: list[int], shape: tuple[int, int], budget: int
) -> tuple[list[int], Matrix]:
    """The places that a tensor names, and a row for each of them; none where nothing is sent."""
    if kind == NOTHING:
        return [], []
    form = bits.number(3) if drawn else kind
    if not RAW <= form <= FACTORS:
        raise RefusedError(WRONG_SHAPE, "there is no such form")
    width = 1 if kind == DRAWN_ENTRIES else shape[1]
    places = bits.index_set(len(drawn) or shape[0], budget // width)
    if not places:
        raise RefusedError(WRONG_SHAPE, "a form for no rows")
    block = _form(bits, form, len(places), width)
    return [drawn[place] for place in places] if drawn else places, block


def _form(bits: Bits, form: int, rows: int, width: int) -> Matrix:
    """A block of one of the five forms [3.7]."""
    if form == RAW:
        return _floats(bits, 32, ">f", rows, width)
    if form == HALF:
        return _floats(bits, 16, ">e", rows, width)
    if form == LEVELS:
        return Levels.read(bits, rows, width).matrix()
    if form == SCALED:
        _, scales = bits.codes(rows)
        if max(scales) > 255:
            raise RefusedError(WRONG_SHAPE, "a row scale is too large")
        factors = [math.ldexp(FRACTIONS[scale % 4], -(scale // 4)) for scale in scales]
        return Levels.read(bits, rows, width).matrix(factors)
    rank = 1 + bits.number(4)
    if rank > width:
        raise RefusedError(WRONG_SHAPE, "the rank is greater than the width")
    if rank * width > BUDGET:
        raise RefusedError(WRONG_SHAPE, "the right factor is too large")
    right = Levels.read(bits, rank, width)
    left = Levels.read(bits, rows, rank)
    return _product(left.matrix(), right.matrix())


def _floats(bits: Bits, size: int, layout: str, rows: int, width: int) -> Matrix:
    words = [[bits.number(size) for _ in range(width)] for _ in range(rows)]
    matrix = [[_unpacked(layout, word) for word in row] for row in words]
    if not all(math.isfinite(value) for row in matrix for value in row):
        raise RefusedError(NOT_FINITE, "a value is not finite")
    return matrix


def _product(left: Matrix, right: Matrix) -> Matrix:
    columns = list(zip(*right, strict=True))
    return [[_narrowed(_dot(row, column)) for column in columns] for row in left]


def _dot(row: Sequence[float], column: Sequence[float]) -> float:
    # Not ``sum``, which compensates for rounding in some versions of Python.
    total = 0.0
    for a, b in zip(row, column, strict=True):
        total += a * b
    return total


def _entries(
    places: list[int], block: Matrix, width: int, *, single: bool
) -> Iterator[tuple[int, float]]:
    """Every entry with its place in the tensor; a row is of one entry where they are single."""
    for place, row in zip(places, block, strict=True):
        for column, value in enumerate(row):
            yield (place if single else place * width + column), value


def _filled(rows: list[int], entries: list[tuple[int, float]], width: int) -> Tensor:
    values = {row: [0.0] * width for row in rows}
    for place, value in entries:
        values[place // width][place % width] = value
    return rows, [values[row] for row in rows]


def _unpacked(layout: str, word: int) -> float:
    value: float = struct.unpack(layout, word.to_bytes(struct.calcsize(layout), "big"))[0]
    return value


def _narrowed(value: float) -> float:
    """Rounded to float32."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        raise RefusedError(NOT_FINITE, "a value is too large") from None
    return rounded


def decode_message(kind: str, raw: bytes) -> dict[int, Any]:
    """The fields of a message by their keys, without the version [2]; raises RefusedError."""
    if len(raw) > MOST_BYTES:
        raise RefusedError(OVERSIZE, "the message is too large")
    if not raw or not 0xA0 <= raw[0] <= 0xB0:
        raise RefusedError(MALFORMED, "not a map of at most 16 entries")
    reader = Cbor(raw)
    fields: dict[int, Any] = reader.item(0)
    reader.finish()
    _check(fields, {0: _integer(1, 1), **_checks(kind, fields)})
    del fields[0]
    return fields


class Cbor:
    """What the messages use of CBOR: no tags and no indefinite lengths [2.1]."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def item(self, depth: int) -> Any:
        head = self._take(1)[0]
        major, low = head >> 5, head & 31
        if major == 7:
            return self._simple(low)
        argument = self._argument(low)
        if major < 2:
            return -1 - argument if major else argument
        if major < 4:
            return self._string(argument, text=major == 3)
        if major == 6 or depth == 2:
            raise RefusedError(MALFORMED, "a tag, or nested too deeply")
        if major == 4:
            return [self.item(depth + 1) for _ in range(argument)]
        return self._map(argument, depth + 1)

    def finish(self) -> None:
        if self._at != len(self._raw):
            raise RefusedError(MALFORMED, "trailing bytes")

    def _take(self, count: int) -> bytes:
        if count > len(self._raw) - self._at:
            raise RefusedError(MALFORMED, "the item ends early")
        self._at += count
        return self._raw[self._at - count : self._at]

    def _argument(self, low: int) -> int:
        if low < 24:
            return low
        if low > 27:
            raise RefusedError(MALFORMED, "an indefinite or a reserved length")
        return int.from_bytes(self._take(1 << (low - 24)), "big")

    def _simple(self, low: int) -> object:
        if low in (20, 21, 22):
            return {20: False, 21: True, 22: None}[low]
        layouts = {25: ">e", 26: ">f", 27: ">d"}
        if low not in layouts:
            raise RefusedError(MALFORMED, "a simple value that is not used here")
        return struct.unpack(layouts[low], self._take(1 << (low - 24)))[0]

    def _string(self, size: int, *, text: bool) -> bytes | str:
        octets = self._take(size)
        try:
            return octets.decode() if text else octets
        except UnicodeDecodeError:
            raise RefusedError(MALFORMED, "a text is not UTF-8") from None

    def _map(self, size: int, depth: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for _ in range(size):
            key = self.item(depth)
            if type(key) is not int or key in found:
                raise RefusedError(MALFORMED, "a key is not an integer, or is there twice")
            found[key] = self.item(depth)
        return found


def _check(fields: Mapping[int, Any], checks: Mapping[int, Check]) -> None:
    if set(fields) != set(checks):
        raise RefusedError(MALFORMED, f"keys {sorted(fields)}, not {sorted(checks)}")
    for key, check in checks.items():
        if not check(fields[key]):
            raise RefusedError(MALFORMED, f"the value of key {key}")


def _checks(kind: str, fields: Mapping[int, Any]) -> dict[int, Check]:
    """What must be true of each field of a kind of message [2.2 to 2.5]."""
    task, counter, sequence = _octets(16), _integer(0, COUNTER), _integer(1, COUNTER)
    if kind == "update":
        head = {1: task, 2: sequence, 3: counter, 4: counter}
        return {**head, 5: _is_metrics, 6: lambda value: type(value) is bytes}
    if kind == "receipt":
        reason = {5: _integer(1, 12)} if fields.get(3) == 2 else {}
        return {1: task, 2: sequence, 3: _integer(0, 2), 4: counter, **reason}
    if kind == "announcement":
        blob = {3: _octets(32), 4: _integer(0, 1 << 40)}
        return {1: task, 2: counter, **blob, 5: _is_boolean, 6: _is_training, 7: _is_codec}
    return {2: _integer(0, 1), 3: _is_text, 4: _is_text}


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _real(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _positive(high: float) -> Check:
    return lambda value: type(value) in (int, float) and 0 < value <= high


def _octets(size: int) -> Check:
    return lambda value: type(value) is bytes and len(value) == size


def _is_boolean(value: object) -> bool:
    return type(value) is bool


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 40 and value.isprintable()


def _is_metrics(value: object) -> bool:
    within = _real(-65504, 65504)
    return isinstance(value, dict) and all(0 <= k <= 3 and within(v) for k, v in value.items())


def _is_list(value: object, checks: Sequence[Check]) -> bool:
    if not isinstance(value, list) or len(value) != len(checks):
        return False
    return all(check(entry) for check, entry in zip(checks, value, strict=True))


def _is_training(value: object) -> bool:
    steps = (_integer(1, 100), _integer(1, 65_536), _integer(0, 1_000))
    return _is_list(value, (_positive(1e3), *steps, _real(0, 1e7), _real(0, 1e3), _real(0, 1e9)))


def _is_codec(value: Any) -> bool:
    sizes = (_real(0, 1), lambda bits: bits in (1, 2, 4, 8), _positive(1), _integer(1, 16))
    residual = (_real(0, 1), _integer(1, 1_000_000), _positive(1e9))
    flags = (_is_boolean, _is_boolean, _is_boolean)
    if not _is_list(value, (_integer(0, 7), *sizes, *flags, *residual)):
        return False
    mode, _, bits, density, _, _, _, unbiased, keep, _, _ = value
    if mode == 6 and bits == 1:
        return False
    random = mode in (4, 5) or (mode == 3 and density == 1)
    return not unbiased or (random and keep == 0)
