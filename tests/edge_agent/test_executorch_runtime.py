"""The runtime `executorch`: what fills a program up changes nothing, and bad input is refused."""

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.errors import ProgramError, RuntimeUnavailableError
from edge_agent.runtimes import Program, ProgramFile, open_runtime, registry
from edge_agent.runtimes.trial import open_update
from export.build import build_bundle
from export.recommender import Recommender
from export.recommenders import RECOMMENDERS
from export.verify import TOLERANCE
from tests.export.local_updates import Arrays, difference, draw_update
from wire.bundle import Bundle
from wire.manifest import Capacity, Optimizer
from wire.policy import TrainingPolicy

pytest.importorskip("executorch", reason="the extra executorch is not installed")

ROWS, SAMPLES = 24, 10


@pytest.fixture(scope="module")
def model() -> Recommender:
    return RECOMMENDERS["mf"](items=40, dimension=4, bias=True)


@pytest.fixture(scope="module")
def bundle(model: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(
        model,
        out=tmp_path_factory.mktemp("executorch") / "bundle",
        optimizer=Optimizer.MOMENTUM,
        runtimes=["onnx", "executorch"],
        row_capacity=ROWS,
        training=TrainingPolicy(batch_size=SAMPLES),
    )


@pytest.fixture(scope="module")
def update(bundle: Bundle) -> Program:
    return open_update(bundle, "executorch")


@pytest.fixture(scope="module")
def exact(bundle: Bundle) -> Program:
    """The program that takes any number of rows and samples."""
    return open_update(bundle, "onnx")


def files_of(bundle: Bundle) -> dict[str, ProgramFile]:
    entries = bundle.manifest.program("executorch")
    return {part: ProgramFile(bundle.path(e), e.sha256) for part, e in entries.items()}


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, ROWS),
    samples=st.integers(1, SAMPLES),
    steps=st.integers(1, 4),
    proximal=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 1000),
)
def test_what_fills_up_to_the_capacity_changes_nothing(
    model: Recommender,
    update: Program,
    exact: Program,
    rows: int,
    samples: int,
    steps: int,
    proximal: float,
    seed: int,
) -> None:
    inputs = draw_update(
        model, rows=rows, samples=samples, steps=steps, proximal=proximal, seed=seed
    )
    outputs = update.run(inputs)
    assert difference(inputs, outputs, exact.run(inputs)) <= TOLERANCE
    # Nor does one bit depend on who fills up.
    filled = update.run(fill(inputs))
    for name, value in outputs.items():
        at_hand = filled[name][:rows] if name == "item_rows.new" else filled[name]
        np.testing.assert_array_equal(value, at_hand)


def fill(inputs: Arrays) -> dict[str, NDArray[Any]]:
    table = inputs["item_rows"]
    missing = SAMPLES - inputs["weight"].shape[1]
    batches = {n: np.pad(inputs[n], ((0, 0), (0, missing))) for n in ("item", "label", "weight")}
    return {
        **inputs,
        "item_rows": np.pad(table, ((0, ROWS - len(table)), (0, 0))),
        **batches,
    }


def test_a_delta_is_clipped_and_its_private_part_is_not(
    model: Recommender, update: Program
) -> None:
    inputs = draw_update(model, rows=9, steps=3, samples=5)
    free, clipped = (update.run({**inputs, "clip": np.array(c, np.float32)}) for c in (9.0, 0.01))
    delta = clipped["item_rows.new"].astype(np.float64) - inputs["item_rows"]
    assert np.linalg.norm(delta) == pytest.approx(0.01, rel=1e-4)
    assert np.linalg.norm(free["item_rows.new"] - inputs["item_rows"]) > 0.1
    np.testing.assert_array_equal(free["user_vector.new"], clipped["user_vector.new"])


@pytest.mark.parametrize("learning_rate", [np.inf, 1e30])
def test_what_diverges_comes_out_as_it_is(
    model: Recommender, update: Program, learning_rate: float
) -> None:
    inputs = draw_update(model, rows=9, steps=3, samples=5, learning_rate=learning_rate, clip=1.0)
    outputs = update.run(inputs)
    assert not np.isfinite(outputs["item_rows.new"]).all()
    assert not np.isfinite(outputs["loss"]).all()


def test_the_capacity_is_known(bundle: Bundle, update: Program) -> None:
    assert update.capacity == Capacity(ROWS, SAMPLES)
    scorer = open_runtime("executorch").open_scorer(bundle.manifest, files_of(bundle))
    assert scorer.capacity is not None
    assert scorer.capacity.rows == ROWS


def test_more_than_the_capacity_is_refused_with_both_numbers(
    model: Recommender, bundle: Bundle, update: Program
) -> None:
    rows = draw_update(model, rows=ROWS + 1, steps=1, samples=2)
    with pytest.raises(ProgramError, match=rf"have {ROWS + 1} rows; the program holds {ROWS}"):
        update.run(rows)
    samples = draw_update(model, rows=ROWS, steps=1, samples=SAMPLES + 1)
    with pytest.raises(ProgramError, match=rf"{SAMPLES + 1} samples; the program holds {SAMPLES}"):
        update.run(samples)
    scorer = open_runtime("executorch").open_scorer(bundle.manifest, files_of(bundle))
    with pytest.raises(ProgramError, match=rf"have {ROWS + 1} rows; the program holds {ROWS}"):
        scorer.run(rows)


def test_inputs_that_do_not_fit_are_named(model: Recommender, update: Program) -> None:
    inputs = draw_update(model, rows=9, steps=2, samples=5)
    for name, value, message in (
        ("user_vector", np.zeros(3, np.float32), r"user_vector is .*\[3\]; .* takes .*\[4\]"),
        ("item_rows", np.zeros((9, 4), np.float32), r"item_rows is .*\[24, 4\]"),
        ("user_vector", np.zeros(4), "user_vector is torch.float64"),
        ("label", np.zeros((2, 5), np.int64), "label is torch.int64"),
        ("label", np.zeros((2, 4), np.float32), "different numbers of steps or samples"),
        ("item", np.full((2, 5), 9), "the tables have 9 rows"),
    ):
        with pytest.raises(ProgramError, match=message):
            update.run({**inputs, name: value})
    del inputs["clip"], inputs["label"]
    with pytest.raises(ProgramError, match=r"needs the inputs \['clip', 'label'\]"):
        update.run(inputs)


def test_what_is_no_program_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    runtime, files = open_runtime("executorch"), files_of(bundle)
    whole = files["update"].path.read_bytes()
    for number, raw in enumerate((b"", b"not a program", whole[:-1])):
        file = tmp_path / f"{number}.pte"
        file.write_bytes(raw)
        with pytest.raises(ProgramError, match=rf"ExecuTorch refuses {number}\.pte"):
            runtime.open_update(bundle.manifest, {"update": ProgramFile(file, str(number))})
    with pytest.raises(ProgramError, match="ExecuTorch refuses"):
        runtime.open_update(bundle.manifest, {"update": files["scorer"]})
    with pytest.raises(ProgramError, match="no part 'update'"):
        runtime.open_update(bundle.manifest, {})


def test_a_program_is_loaded_once(bundle: Bundle) -> None:
    runtime, files = open_runtime("executorch"), files_of(bundle)
    gone = {part: ProgramFile(Path("gone"), file.digest) for part, file in files.items()}
    update = runtime.open_update(bundle.manifest, files)
    assert runtime.open_update(bundle.manifest, gone) is update
    scorer = runtime.open_scorer(bundle.manifest, files)
    assert runtime.open_scorer(bundle.manifest, gone) is scorer


def test_several_threads_may_run_a_program(model: Recommender, update: Program) -> None:
    given = [draw_update(model, rows=20, steps=20, samples=8, seed=seed) for seed in range(8)]
    alone = [update.run(inputs) for inputs in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(update.run, given))
    for one, other in zip(alone, together, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        if name == "edge_agent.runtimes.executorch":
            raise ModuleNotFoundError("No module named 'executorch'", name="executorch")
        return import_module(name)

    monkeypatch.setattr(registry, "import_module", missing)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'rivulet\[executorch\]'"):
        open_runtime("executorch")
