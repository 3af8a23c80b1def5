"""A published version of which only the rows that are looked at come to the device."""

from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import PermanentDownloadError
from wire.codec import decode_delta
from wire.delta import FloatArray, RowBlock, Tensor
from wire.errors import CodecError
from wire.manifest import ParameterSpec, Role
from wire.parameters import Table
from wire.patch import encode_row_numbers, rows_at_once

__all__ = ["RemoteRows"]

Rows = NDArray[np.int64]

ANSWER_BYTES, VALUE_BYTES = 1 << 10, 8
"""An answer takes at most so many bytes, and so many more for each value."""


class RemoteRows:
    """The shared state of one version, asked for row by row; all tables' rows come together.

    Args:
        specs: the manifest's federated parameters.
        items: how many rows a table has.
        ask: takes an encoded set of rows and the most bytes that they may come in, gives them as a
            patch of zeros; raises DownloadError.
    """

    def __init__(
        self, specs: Sequence[ParameterSpec], items: int, ask: Callable[[bytes, int], bytes]
    ) -> None:
        self._specs, self._items, self._ask = specs, items, ask
        self._portion = rows_at_once(specs)
        self._rows: Rows = np.zeros(0, np.int64)
        self._values: dict[str, FloatArray] = {}
        # No rows at all: that asks for the dense parameters, if there are any.
        dense = any(spec.role is Role.DENSE for spec in specs)
        self._dense = self._asked(self._rows) if dense else {}
        for spec in specs:
            if spec.role is Role.ROWS:
                self._values[spec.name] = np.zeros((0, spec.shape[1]), np.float32)

    def parameters(self) -> dict[str, Table]:
        """By name what behaves like the whole parameter.

        Raises:
            DownloadError: when rows are looked at that cannot be had.
        """
        return {
            spec.name: _RemoteTable(self, spec)
            if spec.role is Role.ROWS
            else np.asarray(self._dense[spec.name])
            for spec in self._specs
        }

    def at(self, name: str, rows: Rows) -> FloatArray:
        """Rows of one table, in any order: float32 [n, width]."""
        wanted, where = np.unique(rows, return_inverse=True)
        missing = np.setdiff1d(wanted, self._rows, assume_unique=True)
        for portion in np.split(missing, range(self._portion, len(missing), self._portion)):
            if len(portion):
                self._keep(portion, self._asked(portion))
        return self._values[name][np.searchsorted(self._rows, wanted)][where]

    def _keep(self, rows: Rows, found: Mapping[str, Tensor]) -> None:
        # Kept in order of the row numbers; rows that are zero are not sent.
        order = np.argsort(np.append(self._rows, rows), kind="stable")
        for name, values in self._values.items():
            block = found[name]
            if not isinstance(block, RowBlock) or not np.isin(block.rows, rows).all():
                raise PermanentDownloadError("the rows that came are not those asked for")
            self._values[name] = np.concatenate([values, block.at(rows)])[order]
        self._rows = np.append(self._rows, rows)[order]

    def _asked(self, rows: Rows) -> dict[str, Tensor]:
        sizes = [
            len(rows) * spec.shape[1] if len(rows) else spec.size
            for spec in self._specs
            if spec.role is (Role.ROWS if len(rows) else Role.DENSE)
        ]
        most_bytes = ANSWER_BYTES + VALUE_BYTES * sum(sizes)
        try:
            raw = self._ask(encode_row_numbers(rows, self._items), most_bytes)
            return decode_delta(raw, self._specs)
        except CodecError as error:
            raise PermanentDownloadError(f"the rows that came cannot be read: {error}") from None


class _RemoteTable:
    def __init__(self, source: RemoteRows, spec: ParameterSpec) -> None:
        self._source, self._spec = source, spec

    @property
    def shape(self) -> tuple[int, ...]:
        return self._spec.shape

    def __getitem__(self, rows: Rows | EllipsisType) -> FloatArray:
        if isinstance(rows, EllipsisType):
            rows = np.arange(self._spec.shape[0])
        return self._source.at(self._spec.name, rows)
