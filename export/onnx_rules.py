"""Rewritings that make the graph of a training step faster, and keep what it computes.

Each takes a pattern that PyTorch's automatic differentiation or its conversion leaves. Results may
differ in the last bits.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter.pattern import RewriteRule

__all__ = ["RULES"]

Value = ir.Value

_LONGEST = 2**63 - 1


class _Softplus:
    """x - log sigmoid(x) is softplus(x)."""

    @staticmethod
    def pattern(op: Any, x: Value, zero: Value, one: Value) -> Any:
        return op.Sub(x, _log_sigmoid(op, x, zero, one))

    @staticmethod
    def check(_context: Any, zero: Value, one: Value, **_: Value) -> bool:
        return _numbers(zero) == [0] and _numbers(one) == [1]

    @staticmethod
    def rewrite(op: Any, x: Value, **_: Value) -> Any:
        return op.Softplus(x)


class _CrossEntropy:
    """(1 - label) * x - log sigmoid(x) is softplus(x) - label * x."""

    @staticmethod
    def pattern(op: Any, x: Value, label: Value, zero: Value, one: Value, whole: Value) -> Any:
        return op.Sub(op.Mul(op.Sub(whole, label), x), _log_sigmoid(op, x, zero, one))

    @staticmethod
    def check(_context: Any, zero: Value, one: Value, whole: Value, **_: Value) -> bool:
        return _numbers(zero) == [0] and _numbers(one) == _numbers(whole) == [1]

    @staticmethod
    def rewrite(op: Any, x: Value, label: Value, **_: Value) -> Any:
        return op.Sub(op.Softplus(x), op.Mul(label, x))


def _log_sigmoid(op: Any, x: Value, zero: Value, one: Value) -> Any:
    return op.Sub(op.Min(zero, x), op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), one)))


class _ReluGate:
    """The gradient is 0 where the relu gave 0: a product with its sign, five times as fast."""

    @staticmethod
    def pattern(op: Any, x: Value, least: Value, zero: Value, slope: Value) -> Any:
        output = op.Relu(x, _outputs=["output"])
        return op.Where(op.LessOrEqual(output, least), zero, slope)

    @staticmethod
    def check(_context: Any, least: Value, zero: Value, **_: Value) -> bool:
        return _numbers(least) == _numbers(zero) == [0]

    @staticmethod
    def rewrite(op: Any, output: Value, slope: Value, **_: Value) -> Any:
        return op.Mul(slope, op.Sign(output))


class _VectorTimesMatrix:
    """The transpose of a matrix times a column is a vector times the matrix.

    The other way round it would be slow: ONNX Runtime takes a matrix times a vector row by row.
    """

    @staticmethod
    def pattern(op: Any, matrix: Value, vector: Value, one: Value, axis: Value) -> Any:
        column = op.Unsqueeze(vector, one)
        return op.Squeeze(op.MatMul(op.Transpose(matrix, perm=[1, 0]), column), axis)

    @staticmethod
    def check(_context: Any, vector: Value, one: Value, axis: Value, **_: Value) -> bool:
        return _rank(vector) == 1 and _numbers(one) == _numbers(axis) == [1]

    @staticmethod
    def rewrite(op: Any, matrix: Value, vector: Value, **_: Value) -> Any:
        return op.MatMul(vector, matrix)


class _SumOfScaledRows:
    """The sum of the columns of a transposed matrix, each times a number, is a product too."""

    @staticmethod
    def pattern(op: Any, matrix: Value, vector: Value, axes: Value) -> Any:
        columns = op.Mul(op.Transpose(matrix, perm=[1, 0]), vector)
        return op.ReduceSum(columns, axes, keepdims=0)

    @staticmethod
    def check(_context: Any, matrix: Value, vector: Value, axes: Value) -> bool:
        return _rank(matrix) == 2 and _rank(vector) == 1 and _numbers(axes) == [1]

    @staticmethod
    def rewrite(op: Any, matrix: Value, vector: Value, **_: Value) -> Any:
        return op.MatMul(vector, matrix)


class _OuterProduct:
    """A column times a row is an elementwise product."""

    @staticmethod
    def pattern(op: Any, column: Value, vector: Value, one: Value) -> Any:
        return op.MatMul(column, op.Transpose(op.Unsqueeze(vector, one), perm=[1, 0]))

    @staticmethod
    def check(_context: Any, column: Value, vector: Value, one: Value) -> bool:
        return _rank(column) == 2 and _rank(vector) == 1 and _numbers(one) == [1]

    @staticmethod
    def rewrite(op: Any, column: Value, vector: Value, **_: Value) -> Any:
        return op.Mul(column, vector)


class _SumOfSamples:
    """A sum over the leading dimensions need not keep them for a reshape to take them away."""

    @staticmethod
    def pattern(op: Any, x: Value, axes: Value, shape: Value) -> Any:
        return op.Reshape(op.ReduceSum(x, axes, keepdims=1), shape)

    @staticmethod
    def check(_context: Any, x: Value, axes: Value, shape: Value) -> bool:
        gone, size = _numbers(axes), x.shape
        if size is None or gone != list(range(len(gone))):
            return False
        return list(size[len(gone) :]) == _numbers(shape)

    @staticmethod
    def rewrite(op: Any, x: Value, axes: Value, **_: Value) -> Any:
        return op.ReduceSum(x, axes, keepdims=0)


class _SumOfOne:
    """A sum over dimensions of size 1."""

    @staticmethod
    def pattern(op: Any, x: Value, axes: Value) -> Any:
        return op.ReduceSum(x, axes, keepdims=0)

    @staticmethod
    def check(_context: Any, x: Value, axes: Value) -> bool:
        gone, size = _numbers(axes), x.shape
        return bool(gone) and size is not None and all(size[int(at)] == 1 for at in gone)

    @staticmethod
    def rewrite(op: Any, x: Value, axes: Value) -> Any:
        return op.Squeeze(x, axes)


class _SumOfTwo:
    """A sum over a dimension of size 2 inside others, which ONNX Runtime strides through slowly."""

    @staticmethod
    def pattern(op: Any, x: Value, axes: Value) -> Any:
        return op.ReduceSum(x, axes, keepdims=1)

    @staticmethod
    def check(_context: Any, x: Value, axes: Value) -> bool:
        at, size = _numbers(axes), x.shape
        return size is not None and len(at) == 1 and size[int(at[0])] == 2

    @staticmethod
    def rewrite(op: Any, x: Value, axes: Value) -> Any:
        axis = int(_numbers(axes)[0])
        return op.Add(*op.Split(x, axis=axis, num_outputs=2, _outputs=2))


class _SumOfSquares:
    """Squares and their sum in one."""

    @staticmethod
    def pattern(op: Any, x: Value, two: Value, axes: Value) -> Any:
        return op.ReduceSum(op.Pow(x, two), axes, keepdims=0)

    @staticmethod
    def check(_context: Any, two: Value, **_: Value) -> bool:
        return _numbers(two) == [2]

    @staticmethod
    def rewrite(op: Any, x: Value, axes: Value, **_: Value) -> Any:
        return op.ReduceSumSquare(x, axes, keepdims=0)


class _ProductOfProducts:
    """Two constants in a product are one: a number takes both, before it meets a tensor."""

    @staticmethod
    def pattern(op: Any, x: Value, y: Value, first: Value, second: Value) -> Any:
        return op.Mul(op.Mul(x, first), op.Mul(y, second))

    @staticmethod
    def check(_context: Any, x: Value, first: Value, second: Value, **_: Value) -> bool:
        return _rank(x) == 0 and len(_numbers(first)) == len(_numbers(second)) == 1

    @staticmethod
    def rewrite(op: Any, x: Value, y: Value, first: Value, second: Value) -> Any:
        both = op.Constant(value_float=_numbers(first)[0] * _numbers(second)[0])
        return op.Mul(op.Mul(x, both), y)


class _Normalised:
    """What a layer normalisation without gain normalises is its output."""

    @staticmethod
    def pattern(op: Any, x: Value, gain: Value) -> Any:
        _, mean, scale = op.LayerNormalization(x, gain, _outputs=["output", "mean", "scale"])
        return op.Mul(op.Sub(x, mean), scale)

    @staticmethod
    def check(_context: Any, gain: Value, **_: Value) -> bool:
        return set(_numbers(gain)) == {1.0}

    @staticmethod
    def rewrite(op: Any, output: Value, **_: Value) -> Any:
        return op.Identity(output)


class _NormalisedGradient:
    """A gradient less its means, in place of n times the gradient less its sums, over n."""

    @staticmethod
    def pattern(
        op: Any, slope: Value, x: Value, scale: Value, n: Value, m: Value, axis: Value, other: Value
    ) -> Any:
        away = op.Sub(op.Mul(slope, n), op.ReduceSum(slope, axis, keepdims=1))
        along = op.Mul(x, op.ReduceSum(op.Mul(slope, x), other, keepdims=1))
        return op.Mul(op.Div(scale, m), op.Sub(away, along))

    @staticmethod
    def check(
        _context: Any, slope: Value, n: Value, m: Value, axis: Value, other: Value, **_: Value
    ) -> bool:
        at, size = _numbers(axis), slope.shape
        if size is None or len(at) != 1 or at != _numbers(other):
            return False
        return [size[int(at[0])]] == _numbers(n) == _numbers(m)

    @staticmethod
    def rewrite(op: Any, slope: Value, x: Value, scale: Value, axis: Value, **_: Value) -> Any:
        away = op.Sub(slope, op.ReduceMean(slope, axis, keepdims=1))
        along = op.Mul(x, op.ReduceMean(op.Mul(slope, x), axis, keepdims=1))
        return op.Mul(scale, op.Sub(away, along))


class _WholeSlice:
    """A slice of all there is."""

    @staticmethod
    def pattern(op: Any, x: Value, start: Value, end: Value, axis: Value, by: Value) -> Any:
        return op.Slice(x, start, end, axis, by)

    @staticmethod
    def check(_context: Any, x: Value, start: Value, end: Value, axis: Value, by: Value) -> bool:
        at, stop, size = _numbers(axis), _numbers(end), x.shape
        if size is None or len(at) != 1 or _numbers(start) != [0] or _numbers(by) != [1]:
            return False
        length = size[int(at[0])]
        # What can vary may be as long as an index can be.
        return bool(stop) and (length if isinstance(length, int) else _LONGEST) <= stop[0]

    @staticmethod
    def rewrite(op: Any, x: Value, **_: Value) -> Any:
        return op.Identity(x)


class _TransposedProduct:
    """The transpose of a product is the product of the transposes, and one of them is there."""

    @staticmethod
    def pattern(op: Any, left: Value, right: Value, perm: Any) -> Any:
        return op.Transpose(op.MatMul(op.Transpose(left, perm=perm), right), perm=perm)

    @staticmethod
    def check(_context: Any, left: Value, right: Value, perm: ir.Attr) -> bool:
        order = list(perm.as_ints())
        last = len(order) - 1
        swapped = order == [*range(last - 1), last, last - 1]
        return swapped and _rank(left) == _rank(right) == len(order)

    @staticmethod
    def rewrite(op: Any, left: Value, right: Value, perm: ir.Attr) -> Any:
        return op.MatMul(op.Transpose(right, perm=perm), left)


def _numbers(value: Value) -> list[float]:
    """The numbers of a constant; none if it is no constant."""
    tensor = ir.convenience.get_const_tensor(value)
    return [] if tensor is None else list(tensor.numpy().flatten().tolist())


def _rank(value: Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _rules(kind: Any) -> Sequence[RewriteRule]:
    # What is matched stays, for others may read it; in the end what nobody reads goes.
    rule = RewriteRule(kind.pattern, kind.rewrite, kind.check, remove_nodes=False)
    return list(rule.commute())


RULES: Sequence[RewriteRule] = [
    rule
    for kind in (
        _Softplus,
        _CrossEntropy,
        _ReluGate,
        _VectorTimesMatrix,
        _SumOfScaledRows,
        _OuterProduct,
        _SumOfSamples,
        _SumOfOne,
        _SumOfTwo,
        _SumOfSquares,
        _ProductOfProducts,
        _Normalised,
        _NormalisedGradient,
        _WholeSlice,
        _TransposedProduct,
    )
    for rule in _rules(kind)
]
