"""Make a converted graph small, and keep what it computes."""

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

from export.onnx_rules import RULES

__all__ = ["shrink"]

_PASSES = 3
# What is larger, such as the zeros that a gradient starts from, is cheaper to make than to ship.
_MAX_FOLDED_ELEMENTS = 1_024
# Those of onnxscript's own optimiser that recommenders meet, but for its rules on neutral elements:
# they take a constant below 1e-8 for zero, and so take the epsilon out of a division.
_RULES = [
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.slice_split_rule,
    rules.squeeze_reshape_1d_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.materialize_reshape_shape_rule,
    *RULES,
]


def shrink(model: ir.Model) -> None:
    """Fold constants, take out what does nothing, and merge what is computed twice, in place."""
    optimizer.inline(model)
    for _ in range(_PASSES):
        optimizer.fold_constants(
            model, onnx_shape_inference=True, output_size_limit=_MAX_FOLDED_ELEMENTS
        )
        rewriter.rewrite(model, _RULES)
    for simplified in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.NameFixPass(),
    ):
        simplified(model)
