"""What the codec left out, row by row: an update reads and writes the rows that it touches only."""

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.database import Database
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.feedback import share_left
from wire.manifest import ParameterSpec, Role
from wire.policy import CodecPolicy

__all__ = ["PRUNED_EVERY", "Residuals", "as_rows", "tensor_of"]

Row = tuple[int, bytes, int]

PRUNED_EVERY = 16
"""Updates between two looks for rows that are too old: each look reads the whole table."""

WHOLE = 0
"""Row number under which a dense tensor is kept in one piece."""


class Residuals:
    """Reads and writes residuals; writing belongs inside a transaction of the caller.

    A tensor's residual is kept by (task, parameter); rows that are zero are not kept. Each row has
    the number of updates that the device had made when the row was left out, so that it ages while
    it waits without being written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
        """All of it, as it was left out."""
        found = ((spec, self._rows(task, spec.name, None)) for spec in specs)
        return {spec.name: tensor_of(spec, *_columns(rows)) for spec, rows in found if rows}

    def read_touched(
        self,
        task: str,
        specs: Sequence[ParameterSpec],
        touched: Delta,
        *,
        updates: int,
        policy: CodecPolicy | None,
    ) -> dict[str, Tensor]:
        """The rows that a delta touches, as far as they are not zero.

        Args:
            task: the task.
            specs: its federated parameters.
            touched: the delta.
            updates: how many the device made before.
            policy: how rows age; None for rows as they were left out.
        """
        found = (
            (spec, self._rows(task, spec.name, touched[spec.name]))
            for spec in specs
            if spec.name in touched
        )
        return {
            spec.name: tensor_of(spec, *_columns(rows), updates=updates, policy=policy)
            for spec, rows in found
            if rows
        }

    def write(self, task: str, rows: Delta, *, updates: int) -> None:
        """Replace these rows (and these dense tensors); others stay as they are.

        Args:
            task: the task.
            rows: the new residual of these rows.
            updates: how many the device made, with the one that left these out.
        """
        for name, tensor in rows.items():
            number = self._number(task, name)
            ids, values = as_rows(tensor)
            kept = values.any(axis=1)
            self._database.execute_many(
                "INSERT OR REPLACE INTO residual VALUES (?, ?, ?, ?)",
                [(number, *row, updates) for row in _packed(ids[kept], values[kept])],
            )
            self._database.execute_many(
                "DELETE FROM residual WHERE tensor = ? AND row = ?",
                [(number, row) for row in ids[~kept].tolist()],
            )

    def prune(self, task: str, *, updates: int, most: int) -> None:
        """Drop, now and then, rows that no update touched for a long time.

        Args:
            task: the task.
            updates: how many the device made so far.
            most: how many may have passed since a row was left out.
        """
        if updates % PRUNED_EVERY == 0:
            self._database.execute(
                "DELETE FROM residual WHERE seen < ? AND tensor IN "
                "(SELECT number FROM residual_tensor WHERE task = ?)",
                (updates - most, task),
            )

    def _rows(self, task: str, name: str, touched: Tensor | None) -> list[Row]:
        query = (
            "SELECT row, value, seen FROM residual JOIN residual_tensor ON number = tensor "
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


def as_rows(tensor: Tensor) -> tuple[NDArray[np.int64], FloatArray]:
    """The rows of a tensor as they are kept, and their numbers; a dense tensor is one row."""
    if isinstance(tensor, RowBlock):
        return tensor.rows, tensor.values
    return np.array([WHOLE]), tensor.reshape(1, -1)


def tensor_of(
    spec: ParameterSpec,
    rows: NDArray[np.int64],
    values: FloatArray,
    seen: NDArray[np.int64],
    *,
    updates: int = 0,
    policy: CodecPolicy | None = None,
) -> Tensor:
    """The tensor of rows as they are kept, aged.

    Args:
        spec: of its parameter.
        rows: int64 [n] their numbers, increasing.
        values: float32 [n, width].
        seen: int64 [n], how many updates the device had made when each was left out.
        updates: how many it has made now.
        policy: how they age; None for as they were left out.
    """
    if policy is not None:
        values = values * share_left(updates + 1 - seen, policy)[:, None]
    if spec.role is Role.ROWS:
        return RowBlock(rows, values)
    return values.reshape(spec.shape)


def _packed(ids: NDArray[np.int64], values: FloatArray) -> Iterator[tuple[int, bytes]]:
    raw = np.ascontiguousarray(values, np.dtype("<f4")).tobytes()
    size = len(raw) // max(1, len(ids))
    return ((row, raw[at * size : (at + 1) * size]) for at, row in enumerate(ids.tolist()))


def _columns(
    rows: Iterable[Row],
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
    ids, raw, seen = zip(*rows, strict=True)
    values = np.frombuffer(b"".join(raw), np.dtype("<f4")).astype(np.float32)
    return np.array(ids, np.int64), values.reshape(len(ids), -1), np.array(seen, np.int64)
