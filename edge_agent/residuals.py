"""What the codec left out: an update reads and writes the part of the table that it touches only."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.database import Database
from wire.delta import Delta, FloatArray, RowBlock, Tensor
from wire.manifest import ParameterSpec, Role

__all__ = ["Residuals"]

IntArray = NDArray[np.int64]

BLOCK_BYTES = 2_048
"""Rows of a table are kept in blocks of about this size, because the disk writes whole pages
anyway. It is part of the database's schema."""
KEYS_A_TENSOR = 1 << 40


class Residuals:
    """Reads and writes residuals; writing belongs inside a transaction of the caller.

    A row that was never written is zero, and a block of zeros takes no space.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, task: str, specs: Sequence[ParameterSpec]) -> dict[str, Tensor]:
        """Every row that is not zero; parameters without any are left out."""
        found = {}
        for spec in specs:
            first = (self._number(task, spec.name) or 0) * KEYS_A_TENSOR
            cursor = self._database.execute(
                "SELECT block, value FROM residual WHERE block >= ? AND block < ? ORDER BY block",
                (first, first + KEYS_A_TENSOR),
            )
            entries = cursor.fetchall()
            height, width = _block_shape(_width(spec), whole=spec.role is not Role.ROWS)
            values = _unpacked([value for _, value in entries], height, width).reshape(-1, width)
            blocks = np.array([key - first for key, _ in entries], np.int64)
            rows = (blocks[:, None] * height + np.arange(height)).ravel()
            kept = values.any(axis=1)
            if kept.any():
                found[spec.name] = _tensor(spec, rows[kept], values[kept])
        return found

    def read_touched(
        self, task: str, specs: Sequence[ParameterSpec], touched: Delta
    ) -> dict[str, Tensor]:
        """The rows that a delta touches, zero or not; parameters never written are left out."""
        found = {}
        for spec in specs:
            number = self._number(task, spec.name)
            if number is not None and spec.name in touched:
                rows = _rows(touched[spec.name])
                shape = _block_shape(_width(spec), whole=spec.role is not Role.ROWS)
                blocks, at = np.unique(rows // shape[0], return_inverse=True)
                values = self._blocks(number, blocks, *shape)[at, rows % shape[0]]
                found[spec.name] = _tensor(spec, rows, values)
        return found

    def write(self, task: str, residual: Delta) -> None:
        """Replace these rows (and these dense tensors); others stay as they are."""
        for name, tensor in residual.items():
            number = self._number(task, name)
            if number is None:
                insert = "INSERT INTO residual_tensor (task, parameter) VALUES (?, ?)"
                number = self._database.execute(insert, (task, name)).lastrowid or 0
            self._write(number, tensor)

    def _write(self, number: int, tensor: Tensor) -> None:
        rows, rowwise = _rows(tensor), isinstance(tensor, RowBlock)
        new = tensor.values if isinstance(tensor, RowBlock) else tensor.reshape(1, -1)
        height, width = _block_shape(new.shape[1], whole=not rowwise)
        blocks, at = np.unique(rows // height, return_inverse=True)
        values = self._blocks(number, blocks, height, width)
        values[at, rows % height] = new
        keys, kept = number * KEYS_A_TENSOR + blocks, values.any(axis=(1, 2))
        packed = (block.astype("<f4").tobytes() for block in values[kept])
        self._database.execute_many(
            "INSERT OR REPLACE INTO residual VALUES (?, ?)",
            list(zip(keys[kept].tolist(), packed, strict=True)),
        )
        self._database.execute_many(
            "DELETE FROM residual WHERE block = ?", [(key,) for key in keys[~kept].tolist()]
        )

    def _blocks(self, number: int, blocks: IntArray, height: int, width: int) -> FloatArray:
        """Some blocks, float32 [len(blocks), height, width]; absent ones are zero."""
        keys = number * KEYS_A_TENSOR + blocks
        cursor = self._database.execute(
            "SELECT block, value FROM residual "
            "WHERE block IN (SELECT value FROM json_each(?)) ORDER BY block",
            (json.dumps(keys.tolist()),),
        )
        entries = cursor.fetchall()
        values = np.zeros((len(blocks), height, width), np.float32)
        present = np.isin(keys, np.array([key for key, _ in entries], np.int64))
        values[present] = _unpacked([value for _, value in entries], height, width)
        return values

    def _number(self, task: str, name: str) -> int | None:
        query = "SELECT number FROM residual_tensor WHERE task = ? AND parameter = ?"
        row = self._database.execute(query, (task, name)).fetchone()
        return None if row is None else int(row[0])


def _block_shape(width: int, *, whole: bool) -> tuple[int, int]:
    """Rows a block and values a row; a dense tensor is one row of one block."""
    return 1 if whole else max(1, BLOCK_BYTES // (4 * width)), width


def _width(spec: ParameterSpec) -> int:
    return spec.shape[1] if spec.role is Role.ROWS else spec.size


def _rows(tensor: Tensor) -> IntArray:
    return tensor.rows if isinstance(tensor, RowBlock) else np.zeros(1, np.int64)


def _unpacked(values: list[bytes], height: int, width: int) -> FloatArray:
    flat = np.frombuffer(b"".join(values), np.dtype("<f4")).astype(np.float32)
    return flat.reshape(-1, height, width)


def _tensor(spec: ParameterSpec, rows: IntArray, values: FloatArray) -> Tensor:
    return RowBlock(rows, values) if spec.role is Role.ROWS else values.reshape(spec.shape)
