"""A graph that was made small computes what it did, and nothing is taken for what it is not."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from export.onnx_fusion import shrink

LOG_SIGMOID = """
    a = Abs(x)  n = Neg(a)  e = Exp(n)  p = Add(e, one)  l = Log(p)  m = Min(zero, x)
    s = Sub(m, l)
"""
GATE = "r = Relu(x)  c = LessOrEqual(r, least)  y = Where(c, zero, g)"
NORMAL = "o, mean, scale = LayerNormalization(x, gain)  d = Sub(x, mean)  y = Mul(d, scale)"
GRADIENT = """
    gn = Mul(g, n)  t = ReduceSum<keepdims=1>(g, axis)  away = Sub(gn, t)
    gx = Mul(g, x)  u = ReduceSum<keepdims=1>(gx, axis)  along = Mul(x, u)
    both = Sub(away, along)  f = Div(s, n)  y = Mul(f, both)
"""
TRANSPOSED = "Transpose<perm = [1, 0]>"
X = "float[4,3] x"


def program(inputs: str, body: str, constants: str = "") -> onnx.ModelProto:
    head = '<ir_version: 10, opset_import: ["" : 20]>'
    model = onnx.parser.parse_model(
        f"{head} test ({inputs}) => (float[?] y) <{constants}> {{ {body} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def shrunk(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.serde.deserialize_model(model)
    shrink(graph)
    return ir.serde.serialize_model(graph)


def evaluate(model: onnx.ModelProto) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input
    }
    inputs = {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in shapes.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result: NDArray[Any] = session.run(None, inputs)[0]
    return result


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("model", "left"),
    [
        (
            program(X, f"{LOG_SIGMOID} y = Sub(x, s)", "float zero = {0}, float one = {1}"),
            {"Softplus": 1},
        ),
        (
            program(
                f"{X}, float[4,3] label",
                f"{LOG_SIGMOID} k = Sub(one, label)  kx = Mul(k, x)  y = Sub(kx, s)",
                "float zero = {0}, float one = {1}",
            ),
            {"Softplus": 1, "Mul": 1, "Sub": 1},
        ),
        (
            program(f"{X}, float[4,3] g", GATE, "float least = {0}, float zero = {0}"),
            {"Relu": 1, "Sign": 1, "Mul": 1},
        ),
        (
            program(
                f"{X}, float[4] v",
                f"t = {TRANSPOSED}(x)  w = Unsqueeze(v, at)  p = MatMul(t, w)  y = Squeeze(p, at)",
                "int64[1] at = {1}",
            ),
            {"MatMul": 1},
        ),
        (
            program(
                f"{X}, float[4] v",
                f"t = {TRANSPOSED}(x)  p = Mul(t, v)  y = ReduceSum<keepdims=0>(p, at)",
                "int64[1] at = {1}",
            ),
            {"MatMul": 1},
        ),
        (
            program(
                "float[4,1] x, float[3] v",
                f"w = Unsqueeze(v, at)  t = {TRANSPOSED}(w)  y = MatMul(x, t)",
                "int64[1] at = {1}",
            ),
            {"Mul": 1},
        ),
        (
            program(
                X,
                "t = ReduceSum<keepdims=1>(x, at)  y = Reshape(t, to)",
                "int64[1] at = {0}, int64[1] to = {3}",
            ),
            {"ReduceSum": 1},
        ),
        (
            program("float[1,3] x", "y = ReduceSum<keepdims=0>(x, at)", "int64[1] at = {0}"),
            {"Squeeze": 1},
        ),
        (
            program("float[4,2,3] x", "y = ReduceSum<keepdims=1>(x, at)", "int64[1] at = {1}"),
            {"Split": 1, "Add": 1},
        ),
        (
            program(
                X,
                "q = Pow(x, two)  y = ReduceSum<keepdims=0>(q, at)",
                "float two = {2}, int64[1] at = {1}",
            ),
            {"ReduceSumSquare": 1},
        ),
        (
            program(
                f"{X}, float s",
                "a = Mul(s, c)  b = Mul(x, d)  y = Mul(a, b)",
                "float c = {0.5}, float d = {3}",
            ),
            {"Mul": 2},
        ),
        (program(X, NORMAL, "float[3] gain = {1,1,1}"), {"LayerNormalization": 1}),
        (
            program(
                f"{X}, float[4,3] g, float[4,1] s", GRADIENT, "float n = {3}, int64[1] axis = {1}"
            ),
            {"ReduceMean": 2, "Mul": 3, "Sub": 2},
        ),
        (
            program(
                X,
                "z = Slice(x, zero, end, by, by)  y = Neg(z)",
                "int64[1] zero = {0}, int64[1] end = {9}, int64[1] by = {1}",
            ),
            {"Neg": 1},
        ),
        (
            program(
                "float[2,4,3] x, float[2,4,5] g",
                "t = Transpose<perm=[0,2,1]>(x)  p = MatMul(t, g)  y = Transpose<perm=[0,2,1]>(p)",
            ),
            {"Transpose": 1, "MatMul": 1},
        ),
    ],
)
def test_a_pattern_gets_fewer_operators(model: onnx.ModelProto, left: dict[str, int]) -> None:
    small = shrunk(model)
    assert operators(small) == left
    np.testing.assert_allclose(evaluate(small), evaluate(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        program(X, f"{LOG_SIGMOID} y = Sub(x, s)", "float zero = {0}, float one = {1.5}"),
        program(f"{X}, float[4,3] g", GATE, "float least = {0.5}, float zero = {0}"),
        program(f"{X}, float[4,3] g", GATE, "float least = {0}, float zero = {0.25}"),
        program(X, NORMAL, "float[3] gain = {1,1,2}"),
        program(f"{X}, float[3] gain", NORMAL),
        program(
            X, NORMAL.replace("gain", "gain, b"), "float[3] gain = {1,1,1}, float[3] b = {1,2,3}"
        ),
        program(f"{X}, float[4,3] g, float[4,1] s", GRADIENT, "float n = {4}, int64[1] axis = {1}"),
        program(
            X,
            "z = Slice(x, one, end, one, one)  y = Neg(z)",
            "int64[1] one = {1}, int64[1] end = {9}",
        ),
        program(
            X,
            "q = Pow(x, two)  y = ReduceSum<keepdims=0>(q, at)",
            "float two = {4}, int64[1] at = {1}",
        ),
        program(
            X,
            "t = ReduceSum<keepdims=1>(x, at)  y = Reshape(t, to)",
            "int64[1] at = {1}, int64[2] to = {1,4}",
        ),
    ],
)
def test_what_only_looks_like_a_pattern_stays(model: onnx.ModelProto) -> None:
    small = shrunk(model)
    assert operators(small) == operators(model)
    np.testing.assert_allclose(evaluate(small), evaluate(model), rtol=1e-6, atol=1e-6)


def test_a_small_number_is_not_zero() -> None:
    model = program(X, "z = Mul(x, x)  y = Add(z, tiny)", "float tiny = {1e-10}")
    assert operators(shrunk(model)) == {"Mul": 1, "Add": 1}


def test_a_slice_to_the_end_of_what_may_vary_is_whole() -> None:
    body = "z = Slice(x, zero, end, zero, one)  y = Neg(z)"
    for end, left in ((2**63 - 1, {"Neg": 1}), (7, {"Slice": 1, "Neg": 1})):
        constants = f"int64[1] zero = {{0}}, int64[1] end = {{{end}}}, int64[1] one = {{1}}"
        assert operators(shrunk(program("float[B,3] x", body, constants))) == left


def test_what_others_read_stays() -> None:
    model = program(
        X, f"{LOG_SIGMOID} t = Sub(x, s)  y = Add(t, s)", "float zero = {0}, float one = {1}"
    )
    small = shrunk(model)
    assert operators(small)["Softplus"] == operators(small)["Log"] == 1
    np.testing.assert_allclose(evaluate(small), evaluate(model), rtol=1e-5, atol=1e-6)


def test_constants_are_folded_and_what_is_computed_twice_is_merged() -> None:
    model = program(
        X, "c = Add(one, one)  a = Mul(x, c)  b = Mul(x, c)  y = Add(a, b)", "float one = {1}"
    )
    assert operators(shrunk(model)) == {"Mul": 1, "Add": 1}


def test_a_large_constant_is_not_shipped() -> None:
    model = program(
        "float[100,50] x",
        "z = Expand(zero, size)  y = Add(x, z)",
        "float zero = {0}, int64[2] size = {100, 50}",
    )
    assert len(shrunk(model).SerializeToString()) < 1_000
