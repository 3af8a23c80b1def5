"""A factory's signature and docstring are its options on the command line."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from export.command import main
from export.factories import find_factory, options_of
from export.recommender import Recommender
from export.recommenders import RECOMMENDERS
from wire.bundle import read_bundle

OWN = '''
import torch
from torch import Tensor, nn

from export.losses import bce
from export.recommender import Recommender
from wire.manifest import BatchKind, Role


class Popularity(Recommender):
    """Only an item's popularity counts.

    Args:
        items: size of the catalogue.
        start: what every item starts at.
    """

    kind, batch = "popularity", BatchKind.POINTWISE

    def __init__(self, items: int, start: float = 0.0) -> None:
        super().__init__()
        self.items = items
        self.bias_rows = nn.Parameter(torch.full((items, 1), start))

    def roles(self) -> dict[str, Role]:
        return {"bias_rows": Role.ROWS}

    def loss(self, item: Tensor, label: Tensor) -> Tensor:
        return bce(self.bias_rows[item].squeeze(1), label)

    def score(self) -> Tensor:
        return self.bias_rows.squeeze(1)
'''


def example(
    *,
    items: int,
    rate: float = 0.5,
    loss: Literal["bce", "bpr"] = "bce",
    context: Mapping[str, int] | None = None,
    features: NDArray[np.float32] | None = None,
) -> Recommender:
    """Make nothing.

    Args:
        items: how many.
        rate: how fast; a text
            over two lines.
        loss: which one.

    Returns:
        rate: is no argument here.
    """
    raise NotImplementedError


def test_a_signature_gives_the_options() -> None:
    items, rate, loss, context, features = options_of(example)
    assert (items.kind, items.required, items.text) == (int, True, "how many.")
    assert (rate.kind, rate.default, rate.text) == (float, 0.5, "how fast; a text over two lines.")
    assert (loss.kind, loss.choices, loss.required) == (str, ("bce", "bpr"), False)
    assert (context.kind, context.default, context.text) == (Mapping, None, "")
    assert features.kind is np.ndarray


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_every_option_of_a_recommender_is_described(name: str) -> None:
    for option in options_of(find_factory(name)):
        assert option.text, option.name


def test_a_module_of_ones_own_is_built_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_recommender.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["build", "own_recommender:Popularity", "--items", "7"]
    assert main([*words, "--start", "0.25", "--out", "bundle"]) == 0
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert (manifest.recommender, manifest.items) == ("popularity", 7)
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    shown = capsys.readouterr().out
    assert "Only an item's popularity counts." in shown
    assert "what every item starts at (default: 0.0)" in shown
