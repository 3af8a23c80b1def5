"""What the codec left out, row by row: an update reads and writes the rows that it touches only."""

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.database import Database
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.manifest import ParameterSpec, Role

__all__ = ["Residuals"]

WHOLE = 0
"""Row number under which a dense tensor is kept in one piece."""


class Residuals:
    """Reads and writes residuals; writing belongs inside a transaction of the caller.

    A tensor's residual is kept by (task, parameter); rows that are zero are not kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
        """All of it."""
        found = ((spec, self._rows(task, spec.name, None)) for spec in specs)
        return {spec.name: _tensor(spec, rows) for spec, rows in found if rows}

    def read_touched(
        self, task: str, specs: Sequence[ParameterSpec], touched: Delta
    ) -> dict[str, Tensor]:
        """The rows that a delta touches, as far as they are not zero."""
        found = (
            (spec, self._rows(task, spec.name, touched[spec.name]))
            for spec in specs
            if spec.name in touched
        )
        return {spec.name: _tensor(spec, rows) for spec, rows in found if rows}

    def write(self, task: str, rows: Delta) -> None:
        """Replace these rows (and these dense tensors); others stay as they are."""
        for name, tensor in rows.items():
            number = self._number(task, name)
            ids, values = _as_rows(tensor)
            kept = values.any(axis=1)
            self._database.execute_many(
                "INSERT OR REPLACE INTO residual VALUES (?, ?, ?)",
                [(number, *row) for row in _packed(ids[kept], values[kept])],
            )
            self._database.execute_many(
                "DELETE FROM residual WHERE tensor = ? AND row = ?",
                [(number, row) for row in ids[~kept].tolist()],
            )

    def _rows(self, task: str, name: str, touched: Tensor | None) -> list[tuple[int, bytes]]:
        query = (
            "SELECT row, value FROM residual JOIN residual_tensor ON number = tensor "
            "WHERE task = ? AND parameter = ?"
        )
        if not isinstance(touched, RowBlock):
            cursor = self._database.execute(query + " ORDER BY row", (task, name))
        else:
            cursor = self._database.execute(
                query + " AND row IN (SELECT value FROM json_each(?)) ORDER BY row",
                (task, name, json.dumps(touched.rows.tolist())),
            )
        return cursor.fetchall()

    def _number(self, task: str, name: str) -> int:
        self._database.execute(
            "INSERT OR IGNORE INTO residual_tensor (task, parameter) VALUES (?, ?)", (task, name)
        )
        query = "SELECT number FROM residual_tensor WHERE task = ? AND parameter = ?"
        return int(self._database.execute(query, (task, name)).fetchone()[0])


def _as_rows(tensor: Tensor) -> tuple[NDArray[np.int64], FloatArray]:
    if isinstance(tensor, RowBlock):
        return tensor.rows, tensor.values
    return np.array([WHOLE]), tensor.reshape(1, -1)


def _packed(ids: NDArray[np.int64], values: FloatArray) -> Iterator[tuple[int, bytes]]:
    raw = np.ascontiguousarray(values, np.dtype("<f4")).tobytes()
    size = len(raw) // max(1, len(ids))
    return ((row, raw[at * size : (at + 1) * size]) for at, row in enumerate(ids.tolist()))


def _tensor(spec: ParameterSpec, rows: Iterable[tuple[int, bytes]]) -> Tensor:
    ids, values = zip(*rows, strict=True)
    flat = np.frombuffer(b"".join(values), np.dtype("<f4")).astype(np.float32)
    if spec.role is Role.ROWS:
        return RowBlock(np.array(ids, np.int64), flat.reshape(len(ids), spec.shape[1]))
    return flat.reshape(spec.shape)
