"""Small real tasks whose recommenders see context and history, written by hand in ONNX.

Like ``tiny_task``: real programs for the real runtime, small enough to have a twin in NumPy. Their
programs take no proximal term and no clip.
"""

import numpy as np

from tests.edge_agent.tiny_task import ITEMS, WIDTH, TinyTask, assemble
from wire.manifest import BatchKind, ContextField, Role

__all__ = ["CONTEXT", "FEATURES", "WINDOW", "make_context_task", "make_sequence_task"]

CONTEXT = (ContextField("weekday", 8), ContextField("daytime", 4))
FEATURES = 2
WINDOW = 3

# An item's score: its row times the user, and a bias of the daytime, and how much its features,
# which are frozen, are those of the items before.
CONTEXT_UPDATE = """
<ir_version: 10, opset_import: ["" : 20]>
update (
    float[R, 4] table, float[4] user, float[4] daytime, float[R, 2] features, float[1] scale,
    float learning_rate, int64[S, B] item, float[S, B] label, int64[S, B, 2] context,
    int64[S, B, 3] history, float[S, B, 3] present, float[S, B] weight
) => (float[R, 4] "table.new", float[4] "user.new", float[4] "daytime.new", float[S] loss) {
    "table.new", "user.new", "daytime.new", loss = Scan <num_scan_inputs = 6, body = step (
        float[R, 4] t, float[4] u, float[4] d,
        int64[B] i, float[B] y, int64[B, 2] c, int64[B, 3] h, float[B, 3] p, float[B] w
    ) => (float[R, 4] t2, float[4] u2, float[4] d2, float l) {
        one = Constant <value_int = 1> ()
        last = Constant <value_ints = [1]> ()
        deepest = Constant <value_ints = [2]> ()
        rows = Gather (t, i)
        dot = MatMul (rows, u)
        when = Gather <axis = 1> (c, one)
        bias = Gather (d, when)
        before = Gather (features, h)
        there = Unsqueeze (p, deepest)
        real = Mul (before, there)
        pooled = ReduceSum <keepdims = 0> (real, last)
        own = Gather (features, i)
        both = Mul (own, pooled)
        alike = ReduceSum <keepdims = 0> (both, last)
        scaled_alike = Mul (alike, scale)
        z1 = Add (dot, bias)
        z = Add (z1, scaled_alike)
        q = Sigmoid (z)
        miss = Sub (q, y)
        weighted_miss = Mul (miss, w)
        g = Mul (weighted_miss, learning_rate)
        gu = MatMul (g, rows)
        u2 = Sub (u, gu)
        down = Neg (g)
        at_when = Unsqueeze (when, last)
        d2 = ScatterND <reduction = "add"> (d, at_when, down)
        gc = Unsqueeze (down, last)
        gt = Mul (gc, u)
        at = Unsqueeze (i, last)
        t2 = ScatterND <reduction = "add"> (t, at, gt)
        squared = Mul (miss, miss)
        weighted = Mul (squared, w)
        l = ReduceSum <keepdims = 0> (weighted)
    }> (table, user, daytime, item, label, context, history, present, weight)
}
"""
CONTEXT_SCORER = """
<ir_version: 10, opset_import: ["" : 20]>
score (
    float[R, 4] table, float[4] user, float[4] daytime, float[R, 2] features, float[1] scale,
    int64[2] context, int64[3] history, float[3] present
) => (float[R] score) {
    one = Constant <value_int = 1> ()
    dot = MatMul (table, user)
    when = Gather (context, one)
    bias = Gather (daytime, when)
    before = Gather (features, history)
    pooled = MatMul (present, before)
    alike = MatMul (features, pooled)
    scaled_alike = Mul (alike, scale)
    z = Add (dot, bias)
    score = Add (z, scaled_alike)
}
"""

# An action's score after another: its row times the sum of the user and of the other's memory,
# which is frozen.
SEQUENCE_UPDATE = """
<ir_version: 10, opset_import: ["" : 20]>
update (
    float[R, 4] table, float[4] user, float[R, 4] memory, float learning_rate,
    int64[S, B, 3] history, int64[S, B, 3] positive, int64[S, B, 3] negative,
    float[S, B, 3] present, float[S, B] weight
) => (float[R, 4] "table.new", float[4] "user.new", float[S] loss) {
    "table.new", "user.new", loss = Scan <num_scan_inputs = 5, body = step (
        float[R, 4] t, float[4] u,
        int64[B, 3] h, int64[B, 3] yes, int64[B, 3] no, float[B, 3] p, float[B] w
    ) => (float[R, 4] t2, float[4] u2, float l) {
        first_two = Constant <value_ints = [0, 1]> ()
        deepest = Constant <value_ints = [2]> ()
        last = Constant <value_ints = [1]> ()
        remembered = Gather (memory, h)
        state = Add (remembered, u)
        yes_rows = Gather (t, yes)
        no_rows = Gather (t, no)
        yes_both = Mul (yes_rows, state)
        no_both = Mul (no_rows, state)
        yes_z = ReduceSum <keepdims = 0> (yes_both, deepest)
        no_z = ReduceSum <keepdims = 0> (no_both, deepest)
        no_more = Neg (yes_z)
        yes_miss = Sigmoid (no_more)
        no_miss = Sigmoid (no_z)
        column = Unsqueeze (w, last)
        counted = Mul (p, column)
        rate = Mul (counted, learning_rate)
        up = Mul (yes_miss, rate)
        off = Mul (no_miss, rate)
        down = Neg (off)
        up_column = Unsqueeze (up, deepest)
        down_column = Unsqueeze (down, deepest)
        yes_change = Mul (up_column, state)
        no_change = Mul (down_column, state)
        yes_at = Unsqueeze (yes, deepest)
        no_at = Unsqueeze (no, deepest)
        t1 = ScatterND <reduction = "add"> (t, yes_at, yes_change)
        t2 = ScatterND <reduction = "add"> (t1, no_at, no_change)
        yes_user = Mul (up_column, yes_rows)
        no_user = Mul (down_column, no_rows)
        user_change = Add (yes_user, no_user)
        du = ReduceSum <keepdims = 0> (user_change, first_two)
        u2 = Add (u, du)
        missed = Add (yes_miss, no_miss)
        weighted = Mul (missed, counted)
        l = ReduceSum <keepdims = 0> (weighted)
    }> (table, user, history, positive, negative, present, weight)
}
"""
SEQUENCE_SCORER = """
<ir_version: 10, opset_import: ["" : 20]>
score (
    float[R, 4] table, float[4] user, float[R, 4] memory, int64[3] history, float[3] present
) => (float[R] score) {
    newest = Constant <value_int = 2> ()
    at = Gather (history, newest)
    there = Gather (present, newest)
    row = Gather (memory, at)
    remembered = Mul (row, there)
    state = Add (remembered, user)
    score = MatMul (table, state)
}
"""


def make_context_task() -> TinyTask:
    """Labelled items in a context and after a history."""
    rng = np.random.default_rng(1)
    return assemble(
        "context",
        BatchKind.POINTWISE,
        CONTEXT_UPDATE,
        CONTEXT_SCORER,
        {
            "table": (Role.ROWS, rng.normal(0.0, 0.3, (ITEMS, WIDTH))),
            "user": (Role.PRIVATE, np.full(WIDTH, 0.1)),
            "daytime": (Role.DENSE, rng.normal(0.0, 0.3, CONTEXT[1].size)),
            "features": (Role.FROZEN_ROWS, rng.normal(0.0, 1.0, (ITEMS, FEATURES))),
            "scale": (Role.FROZEN, np.full(1, 0.5)),
        },
        context=CONTEXT,
        history=WINDOW,
    )


def make_sequence_task() -> TinyTask:
    """Windows of consecutive actions."""
    rng = np.random.default_rng(2)
    return assemble(
        "sequence",
        BatchKind.SEQUENCE,
        SEQUENCE_UPDATE,
        SEQUENCE_SCORER,
        {
            "table": (Role.ROWS, rng.normal(0.0, 0.3, (ITEMS, WIDTH))),
            "user": (Role.PRIVATE, np.full(WIDTH, 0.1)),
            "memory": (Role.FROZEN_ROWS, rng.normal(0.0, 0.5, (ITEMS, WIDTH))),
        },
        history=WINDOW,
    )
