"""ExecuTorch programs train and score as PyTorch does, for every recommender and optimiser.

That programs of ONNX Runtime do so, `test_parity` and `test_scorer` show.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_agent.runtimes import Program, ProgramFile, open_runtime
from edge_agent.runtimes.trial import open_update
from export.build import build_bundle
from export.errors import ExportError, RecommenderError
from export.executorch import executorch_programs
from export.losses import bce
from export.recommender import Recommender, local_copy, parameter_specs, parameter_values
from export.recommenders import RECOMMENDERS
from export.reference import local_update
from export.scorer import score_module
from export.verify import TOLERANCE
from tests.export.local_updates import Arrays, difference, draw_situation, draw_update
from wire.bundle import Bundle
from wire.manifest import BatchKind, Capacity, Optimizer, Role
from wire.policy import TrainingPolicy

pytest.importorskip("executorch", reason="the extra executorch is not installed")

ITEMS, ROWS, SAMPLES = 40, 24, 10
FEATURES = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(0))
CONTEXT = {"weekday": 7, "weather": 3}

MODELS: Mapping[str, Callable[[], Recommender]] = {
    "mf": lambda: RECOMMENDERS["mf"](items=ITEMS, dimension=4, bias=True),
    "mf-bpr": lambda: RECOMMENDERS["mf"](items=ITEMS, dimension=4, loss="bpr"),
    "linear": lambda: RECOMMENDERS["linear"](items=ITEMS, context=CONTEXT, features=FEATURES),
    "neumf": lambda: RECOMMENDERS["neumf"](items=ITEMS, dimension=4, hidden=6),
    "fm": lambda: RECOMMENDERS["fm"](items=ITEMS, dimension=4, context=CONTEXT),
    "two_tower": lambda: RECOMMENDERS["two_tower"](
        items=ITEMS, dimension=4, hidden=6, history=5, features=FEATURES
    ),
    "sasrec": lambda: RECOMMENDERS["sasrec"](items=ITEMS, dimension=4, history=5),
}


def build(model: str, optimizer: Optimizer, out: Path) -> Bundle:
    return build_bundle(
        MODELS[model](),
        out=out,
        optimizer=optimizer,
        runtimes=["executorch"],
        row_capacity=ROWS,
        training=TrainingPolicy(batch_size=SAMPLES),
    )


def open_scorer(bundle: Bundle) -> Program:
    entries = bundle.manifest.program("executorch")
    files = {part: ProgramFile(bundle.path(e), e.sha256) for part, e in entries.items()}
    return open_runtime("executorch").open_scorer(bundle.manifest, files)


def module_scores(recommender: Recommender, inputs: Arrays, situation: Arrays) -> list[float]:
    local = local_copy(recommender, ROWS - 5)
    for name, value in parameter_values(local).items():
        value.copy_(torch.tensor(inputs[name]))
    given = {name: torch.tensor(value) for name, value in situation.items()}
    with torch.no_grad():
        scores: list[float] = local.score(**given).tolist()
    return scores


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        ("mf", Optimizer.SGD),
        ("mf-bpr", Optimizer.MOMENTUM),
        pytest.param("linear", Optimizer.ADAM, marks=pytest.mark.slow),
        pytest.param("neumf", Optimizer.ADAGRAD, marks=pytest.mark.slow),
        pytest.param("fm", Optimizer.SGD, marks=pytest.mark.slow),
        pytest.param("two_tower", Optimizer.SGD, marks=pytest.mark.slow),
        pytest.param("sasrec", Optimizer.SGD, marks=pytest.mark.slow),
    ],
)
def test_a_local_update_and_a_score_are_those_of_pytorch(
    model: str, optimizer: Optimizer, tmp_path: Path
) -> None:
    recommender, bundle = MODELS[model](), build(model, optimizer, tmp_path / "bundle")
    for proximal, clip in ((0.0, np.inf), (0.5, 0.05)):
        inputs = draw_update(
            recommender, rows=ROWS - 5, steps=4, samples=SAMPLES - 3, proximal=proximal, clip=clip
        )
        expected = local_update(recommender, optimizer, inputs)
        outputs = open_update(bundle, "executorch").run(inputs)
        assert difference(inputs, outputs, expected) <= TOLERANCE
        assert outputs["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
    situation = draw_situation(recommender, rows=ROWS - 5)
    scores = open_scorer(bundle).run({**inputs, **situation})["score"]
    assert scores.shape == (ROWS - 5,)
    right = module_scores(recommender, inputs, situation)
    assert scores.tolist() == pytest.approx(right, rel=1e-5, abs=1e-6)


def describe(features: Tensor) -> Recommender:
    return RECOMMENDERS["linear"](items=len(features), context={"daytime": 4}, features=features)


@pytest.fixture(scope="module")
def described() -> Mapping[str, bytes]:
    return executorch_programs(describe(torch.ones(5, 2)), Optimizer.MOMENTUM, Capacity(4, 1))


COMPILE = """
import sys, torch
from export.executorch import executorch_programs
from tests.export.test_executorch import describe
from wire.manifest import Capacity, Optimizer
model = describe(torch.randn(7, 2))
programs = executorch_programs(model, Optimizer.MOMENTUM, Capacity(4, 1))
sys.stdout.buffer.write(programs["update"] + programs["scorer"])
"""


@pytest.mark.slow
def test_bytes_do_not_depend_on_process_and_values_and_compiling_says_nothing(
    described: Mapping[str, bytes],
) -> None:
    words = [sys.executable, "-W", "error", "-c", COMPILE]
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == described["update"] + described["scorer"]


def test_a_program_says_what_it_takes_and_gives(described: Mapping[str, bytes]) -> None:
    from executorch.extension.pybindings import _C

    model = describe(torch.ones(5, 2))
    update = _C._load_program_from_buffer(described["update"])
    told = {
        name: update.load_method(name).call([])[0]
        for name in map(update.get_method_name, range(update.num_methods()))
        if name not in ("forward", "proximal")
    }
    specs = parameter_specs(model)
    trained = [spec.name for spec in specs if spec.role is not Role.FROZEN_ROWS]
    frozen = [spec.name for spec in specs if spec.role is Role.FROZEN_ROWS]
    starts = [f"{spec.name}.start" for spec in specs if spec.role in (Role.DENSE, Role.ROWS)]
    velocities = [f"{name}.velocity" for name in trained]
    samples = ["item", "label", "context", "weight"]
    inputs = [*trained, *velocities, *frozen, *samples, "learning_rate"]
    assert frozen
    assert {name: told.pop(name) for name in ("rows", "batch")} == {"rows": 4, "batch": 1}
    assert {name: text.split() for name, text in told.items()} == {
        "inputs": inputs,
        "proximal_inputs": [*inputs, *starts, "proximal"],
        "outputs": [*(f"{name}.new" for name in (*trained, *velocities)), "loss"],
        "state": velocities,
        "tables": [spec.name for spec in specs if spec.is_table],
        "samples": samples,
    }
    for method, names in (("forward", "inputs"), ("proximal", "proximal_inputs")):
        assert update.method_meta(method).num_inputs() == len(told[names].split())


def test_a_scorer_carries_no_parameters() -> None:
    module, examples = score_module(describe(torch.ones(5, 2)), 4)
    assert examples["features"].shape == (4, 2)
    assert not sum(value.numel() for value in module.state_dict().values())


class Probe(Recommender):
    """A recommender whose logit is given by the test."""

    kind, batch, items = "probe", BatchKind.POINTWISE, 4

    def __init__(self, logit: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.ones(4, 3))
        self._logit = logit

    def roles(self) -> Mapping[str, Role]:
        return {"rows": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return bce(self._logit(self.rows[item]).sum(1), label)

    def score(self) -> Tensor:
        scores: Tensor = self.rows.sum(1)
        return scores


def sorts(rows: Tensor) -> Tensor:
    return rows * torch.sort(rows.detach(), 1).indices


def bends(rows: Tensor) -> Tensor:
    bent: Tensor = torch.special.bessel_j0(rows.detach())
    return rows + bent


@pytest.mark.parametrize(
    ("logit", "operator"), [(sorts, r"aten\.sort"), (bends, r"aten\.special_bessel_j0")]
)
def test_an_operator_without_a_kernel_is_named_with_its_line(
    logit: Callable[[Tensor], Tensor], operator: str
) -> None:
    message = rf"operator {operator} at .*test_executorch\.py:\d+: .* has no ExecuTorch kernel"
    with pytest.raises(RecommenderError, match=message):
        executorch_programs(Probe(logit), Optimizer.SGD, Capacity(4, 4))


def test_without_the_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(ExportError, match=r"pip install 'rivulet\[executorch\]'"):
        executorch_programs(MODELS["mf"](), Optimizer.SGD, Capacity(4, 4))
