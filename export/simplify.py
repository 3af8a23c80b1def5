"""Take out of a traced graph what computes nothing: products with one, copies to broadcast."""

from itertools import zip_longest

import torch
from torch import fx

__all__ = ["is_zeros", "simplify"]

_aten = torch.ops.aten

_FILLED = {
    _aten.full.default: 1,
    _aten.full_like.default: 1,
    _aten.scalar_tensor.default: 0,
}
"""Operators whose result has one value everywhere, and which argument holds that value."""

_ELEMENTWISE = {_aten.add.Tensor, _aten.mul.Tensor, _aten.sub.Tensor}

_SAME_VALUE = {_aten.alias.default, _aten.expand.default, _aten.view.default}


def simplify(graph: fx.Graph) -> None:
    """Replace x * 1, x ** 1, x + 0 and x - 0 by x, and let operators broadcast, in place.

    Automatic differentiation leaves many of these: it starts from a gradient of 1, expands the
    gradient of a sum, and a loss often fixes the label. Results change only in the sign of a zero.
    """
    for node in graph.nodes:
        operand = _neutral_in(node)
        # The constant may be what gives the result its shape or its dtype.
        if operand is not None and _form(operand) == _form(node):
            node.replace_all_uses_with(operand)
        elif node.target in _ELEMENTWISE:
            _broadcast(node)
    graph.eliminate_dead_code()


def is_zeros(value: object) -> bool:
    """Whether an argument of a node is zero everywhere, whatever its shape."""
    return _constant(value) == 0


def _broadcast(node: fx.Node) -> None:
    """Take away the copies of an operand that the operator makes by itself."""
    left, right = node.args[:2]
    if left is right:
        return
    for expanded, other in ((left, right), (right, left)):
        if not isinstance(expanded, fx.Node) or not isinstance(other, fx.Node):
            continue
        if expanded.target is not _aten.expand.default:
            continue
        (source,) = (a for a in expanded.args[:1] if isinstance(a, fx.Node))
        if _common_size(_size(source), _size(other)) == _size(node):
            node.replace_input_with(expanded, source)
            return


def _common_size(one: list[str], other: list[str]) -> list[str]:
    """The size that two operands get together; sizes as text, the last dimension last."""
    pairs = zip_longest(reversed(one), reversed(other), fillvalue="1")
    return [right if left == "1" else left for left, right in pairs][::-1]


def _neutral_in(node: fx.Node) -> fx.Node | None:
    if node.op != "call_function" or node.kwargs.get("alpha", 1) != 1:
        return None
    if node.target is _aten.mul.Tensor:
        return _other(node, 1) or _other(node, 1, mirrored=True)
    if node.target is _aten.add.Tensor:
        return _other(node, 0) or _other(node, 0, mirrored=True)
    if node.target is _aten.sub.Tensor:
        return _other(node, 0)
    if node.target is _aten.pow.Tensor_Scalar:
        return _other(node, 1)
    return None


def _other(node: fx.Node, neutral: int, *, mirrored: bool = False) -> fx.Node | None:
    kept, constant = node.args[:2] if not mirrored else reversed(node.args[:2])
    return kept if isinstance(kept, fx.Node) and _constant(constant) == neutral else None


def _constant(value: object) -> float | None:
    if not isinstance(value, fx.Node):
        return value if isinstance(value, int | float) else None
    if value.target in _FILLED:
        return _constant(value.args[_FILLED[value.target]])
    if value.target in _SAME_VALUE:
        return _constant(value.args[0])
    if value.target is _aten.sub.Tensor and not value.kwargs:
        left, right = (_constant(argument) for argument in value.args[:2])
        return None if left is None or right is None else left - right
    return None


def _form(node: fx.Node) -> tuple[list[str], torch.dtype]:
    return _size(node), node.meta["val"].dtype


def _size(node: fx.Node) -> list[str]:
    # As text: comparing symbolic sizes would record guards that bind them.
    return [str(size) for size in node.meta["val"].shape]
