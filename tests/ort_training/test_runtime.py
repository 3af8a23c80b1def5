"""The runtime `ort-training` trains as PyTorch does; what fills a program up changes nothing."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.errors import ProgramError
from edge_agent.runtimes import Program, ProgramFile, open_runtime
from edge_agent.runtimes.trial import open_update
from export.reference import local_update
from export.verify import TOLERANCE
from tests.export.local_updates import difference, draw_situation, draw_update
from tests.export.small_recommenders import SMALL
from wire.bundle import Bundle
from wire.manifest import Capacity, Manifest, Optimizer

pytest.importorskip(
    "onnxruntime.training",
    reason="ONNX Runtime Training replaces ONNX Runtime: run in an environment of its own",
)

ROWS, SAMPLES = 24, 10
CASES = [
    ("mf", Optimizer.SGD),
    ("mf", Optimizer.ADAM),
    ("mf-bpr", Optimizer.SGD),
    ("linear", Optimizer.ADAM),
    ("neumf", Optimizer.SGD),
    ("fm", Optimizer.ADAM),
    ("two_tower", Optimizer.ADAM),
    ("sasrec", Optimizer.SGD),
]
RATES = {Optimizer.SGD: 0.05, Optimizer.ADAM: 0.01}

MakeBundle = Callable[[str, Optimizer], Bundle]
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Bundle:
    return make_bundle("mf", Optimizer.ADAM)


@pytest.fixture(scope="module")
def update(bundle: Bundle) -> Program:
    return open_update(bundle, "ort-training")


def draw(**arguments: Any) -> Arrays:
    return draw_update(SMALL["mf"](), **{"rows": 9, "steps": 3, "samples": 5, **arguments})


def files_of(bundle: Bundle) -> dict[str, ProgramFile]:
    entries = bundle.manifest.program("ort-training")
    return {part: ProgramFile(bundle.path(e), e.sha256) for part, e in entries.items()}


def open_files(manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
    return open_runtime("ort-training").open_update(manifest, files)


def assert_same_bits(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize(("model", "optimizer"), CASES)
def test_a_local_update_is_that_of_pytorch(
    make_bundle: MakeBundle, model: str, optimizer: Optimizer
) -> None:
    recommender = SMALL[model]()
    update = open_update(make_bundle(model, optimizer), "ort-training")
    for proximal, clip in ((0.0, np.inf), (0.7, np.inf), (0.0, 0.01)):
        inputs = draw_update(
            recommender,
            rows=ROWS - 5,
            steps=6,
            samples=SAMPLES - 3,
            learning_rate=RATES[optimizer],
            proximal=proximal,
            clip=clip,
        )
        outputs, expected = update.run(inputs), local_update(recommender, optimizer, inputs)
        assert difference(inputs, outputs, expected) <= TOLERANCE
        losses = np.asarray(outputs["loss"], np.float32)
        np.testing.assert_allclose(losses, expected["loss"], rtol=1e-5)


def test_a_scorer_takes_any_number_of_rows(make_bundle: MakeBundle) -> None:
    bundle, recommender = make_bundle("mf", Optimizer.SGD), SMALL["mf"]()
    scorer = open_runtime("ort-training").open_scorer(bundle.manifest, files_of(bundle))
    assert scorer.capacity is None
    inputs = draw(rows=ROWS + 9)
    given = {**inputs, **draw_situation(recommender, rows=ROWS + 9)}
    score = np.asarray(scorer.run(given)["score"], np.float32)
    user = np.append(inputs["user_vector"], np.float32(1.0))
    assert score == pytest.approx(inputs["item_rows"] @ user, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, ROWS),
    samples=st.integers(1, SAMPLES),
    proximal=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 1000),
)
def test_rows_out_of_reach_and_samples_without_weight_change_no_bit(
    update: Program, rows: int, samples: int, proximal: float, seed: int
) -> None:
    inputs = draw(rows=rows, samples=samples, proximal=proximal, seed=seed)
    # In place of the zeros that the runtime fills with, whatever else could stand there.
    other = draw(rows=ROWS, samples=SAMPLES, seed=seed + 1)
    item, label, weight, table = (other[n] for n in ("item", "label", "weight", "item_rows"))
    item %= rows
    weight[:] = 0.0
    for whole, name in ((item, "item"), (label, "label"), (weight, "weight")):
        whole[:, :samples] = inputs[name]
    table[:rows] = inputs["item_rows"]
    outputs = update.run(inputs)
    filled = update.run(
        {**inputs, "item": item, "label": label, "weight": weight, "item_rows": table}
    )
    np.testing.assert_array_equal(filled["item_rows.new"][rows:], table[rows:])
    assert_same_bits({**filled, "item_rows.new": filled["item_rows.new"][:rows]}, outputs)


def test_an_update_leaves_nothing_behind_for_the_next(update: Program) -> None:
    inputs = draw(steps=8)
    first = update.run(inputs)
    update.run(draw(steps=8, seed=1, proximal=0.5))
    assert_same_bits(update.run(inputs), first)


def test_several_threads_may_run_a_program(update: Program) -> None:
    given = [draw(rows=20, steps=30, seed=seed) for seed in range(6)]
    alone = [update.run(inputs) for inputs in given]
    with ThreadPoolExecutor(3) as pool:
        for outputs, expected in zip(pool.map(update.run, given), alone, strict=True):
            assert_same_bits(outputs, expected)


def test_no_steps_change_nothing(update: Program) -> None:
    inputs = draw()
    none = {name: inputs[name][:0] for name in ("item", "label", "weight")}
    outputs = update.run({**inputs, **none})
    assert outputs.pop("loss").shape == (0,)
    assert_same_bits(outputs, {name: inputs[name.removesuffix(".new")] for name in outputs})


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": np.inf}, {"proximal": np.nan}, {"clip": np.nan}]
)
def test_what_is_not_finite_stays_so(update: Program, wrong: dict[str, float]) -> None:
    given = {name: np.array(value, np.float32) for name, value in wrong.items()}
    outputs = update.run({**draw(clip=1.0), **given})
    assert not np.isfinite(outputs["item_rows.new"]).all()


def test_more_than_the_capacity_is_refused_with_both_numbers(update: Program) -> None:
    assert update.capacity == Capacity(ROWS, SAMPLES)
    with pytest.raises(ProgramError, match=rf"have {ROWS + 1} rows; the program holds {ROWS}"):
        update.run(draw(rows=ROWS + 1))
    with pytest.raises(ProgramError, match=rf"{SAMPLES + 1} samples; the program holds {SAMPLES}"):
        update.run(draw(samples=SAMPLES + 1))


def test_inputs_that_do_not_fit_are_refused(update: Program) -> None:
    inputs = draw(steps=2)
    for name, value, message in (
        ("user_vector", np.zeros(3, np.float32), r"failed: Parameter data shape mismatch"),
        ("item_rows", np.zeros((9, 4), np.float32), r"failed: Parameter data shape mismatch"),
        ("user_vector", np.zeros(4), "failed: Parameter data type mismatch"),
        ("label", np.zeros((2, 5), np.int64), "failed: Unexpected input data type"),
        ("label", np.zeros((2, 4), np.float32), "different numbers of steps or samples"),
        ("item", np.full((2, 5), 9), "the tables have 9 rows"),
    ):
        with pytest.raises(ProgramError, match=message):
            update.run({**inputs, name: value})
    del inputs["label"]
    with pytest.raises(ProgramError, match=r"needs the inputs \['label'\]"):
        update.run(inputs)


def test_files_may_have_any_name_and_a_program_is_opened_once(
    bundle: Bundle, tmp_path: Path
) -> None:
    runtime, files = open_runtime("ort-training"), files_of(bundle)
    for part, file in files.items():
        path = tmp_path / file.digest
        path.write_bytes(file.path.read_bytes())
        files[part] = replace(file, path=path)
    update = runtime.open_update(bundle.manifest, files)
    assert runtime.open_update(bundle.manifest, files_of(bundle)) is update
    inputs = draw()
    assert_same_bits(update.run(inputs), open_update(bundle, "ort-training").run(inputs))


@pytest.mark.parametrize("damaged", ["training", "optimizer", "checkpoint"])
def test_what_is_no_program_is_refused(bundle: Bundle, tmp_path: Path, damaged: str) -> None:
    files = files_of(bundle)
    whole = files[damaged].path.read_bytes()
    for number, raw in enumerate((b"", b"not a program", whole[: len(whole) // 2])):
        path = tmp_path / f"{number}"
        path.write_bytes(raw)
        with pytest.raises(ProgramError, match="ONNX Runtime Training refuses the program"):
            open_files(bundle.manifest, {**files, damaged: ProgramFile(path, str(number))})


def test_a_file_that_went_away_is_named(bundle: Bundle, tmp_path: Path) -> None:
    files = files_of(bundle)
    path = tmp_path / "proximal"
    path.write_bytes(files["proximal"].path.read_bytes())
    update = open_files(bundle.manifest, {**files, "proximal": ProgramFile(path, "0")})
    path.unlink()
    with pytest.raises(ProgramError, match=f"refuses the program: .*{path}"):
        update.run(draw(proximal=0.5))


def test_a_program_of_another_task_is_refused(make_bundle: MakeBundle, bundle: Bundle) -> None:
    other = make_bundle("neumf", Optimizer.SGD).manifest
    with pytest.raises(ProgramError, match=r"trains \['item_rows', 'user_vector'\]; the manifest"):
        open_files(other, files_of(bundle))
    with pytest.raises(ProgramError, match=r"manifest\.capacity is missing"):
        open_files(replace(bundle.manifest, capacity=None), files_of(bundle))
    with pytest.raises(ProgramError, match="no part 'training'"):
        open_files(bundle.manifest, {})


TRAIN_WITHOUT = """
import sys
sys.modules["torch"] = None
from pathlib import Path
import numpy as np
from edge_agent.runtimes.trial import open_update
from wire.bundle import read_bundle
update = open_update(read_bundle(Path(sys.argv[1])), "ort-training")
np.savez(sys.argv[3], **update.run(dict(np.load(sys.argv[2]))))
"""


def test_a_device_trains_without_pytorch_and_in_silence(
    bundle: Bundle, update: Program, tmp_path: Path
) -> None:
    inputs = draw(proximal=0.2)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    paths = [str(bundle.root), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
    words = [sys.executable, "-W", "error", "-c", TRAIN_WITHOUT, *paths]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_same_bits(dict(np.load(paths[2])), update.run(inputs))
