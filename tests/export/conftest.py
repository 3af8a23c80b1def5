from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from export.onnx_graph import to_bytes
from export.recommenders import RECOMMENDERS
from export.training_graph import training_program
from tests.export.small_recommenders import SMALL
from tests.onnx_operators import listed_once
from wire.manifest import Optimizer

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    with listed_once():
        yield


@pytest.fixture(scope="session")
def run() -> Callable[[ModelProto, Arrays], dict[str, NDArray[Any]]]:
    """Run a program as a device does: stock ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    @cache
    def session(program: bytes) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])

    def run_program(model: ModelProto, inputs: Arrays) -> dict[str, NDArray[Any]]:
        loaded = session(to_bytes(model))
        outputs = loaded.run(None, dict(inputs))
        return dict(zip([node.name for node in loaded.get_outputs()], outputs, strict=True))

    return run_program


@pytest.fixture(scope="session")
def mf_program() -> Callable[[str, bool, int, float], ModelProto]:
    """The compiled local update of matrix factorisation, by loss, bias, dimension and l2."""

    @cache
    def compile_mf(loss: str, bias: bool, dimension: int, l2: float) -> ModelProto:
        mf = RECOMMENDERS["mf"](items=3, loss=loss, bias=bias, dimension=dimension, l2=l2)
        return training_program(mf)

    return compile_mf


@pytest.fixture(scope="session")
def program() -> Callable[[str, Optimizer], ModelProto]:
    """The compiled local update of a small recommender, by its name and optimiser."""
    return cache(lambda name, optimizer: training_program(SMALL[name](), optimizer))
