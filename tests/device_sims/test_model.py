"""A recommender by its name: options from text, and what the data set gives."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_sims.data_options import DATASETS
from device_sims.datasets import ContextField, Interactions, synthesise
from device_sims.model import Model, make_recommender, parse_options, takes
from device_sims.presets import preset
from export import RECOMMENDERS
from export.errors import ExportError, RecommenderError
from export.recommender import Recommender
from wire.manifest import BatchKind, Optimizer
from wire.policy import CodecPolicy, TrainingPolicy


def model(recommender: str, **options: Any) -> Model:
    return Model(
        recommender=recommender,
        options=options,
        optimizer=Optimizer.SGD,
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    )


def data(*, context: bool = False, features: bool = True) -> Interactions:
    found = synthesise(users=10, items=20, mean_interactions=6.0)
    if context:
        days = ContextField(name="day", labels=("mon", "tue"))
        found = replace(found, context=(days,), context_ids=np.ones((len(found), 1), np.int64))
    if not features:
        found = replace(found, feature_names=(), features=found.features[:, :0])
    return found


def test_options_become_what_the_factory_takes() -> None:
    texts = {"dimension": "8", "l2": "1e-3", "loss": "bpr", "bias": "true"}
    assert parse_options("mf", texts) == {"dimension": 8, "l2": 0.001, "loss": "bpr", "bias": True}


@pytest.mark.parametrize(
    ("recommender", "texts", "says"),
    [
        ("sasrec", {"layers": "2"}, "sasrec has no option 'layers'; it has dimension, history"),
        ("mf", {"dimension": "many"}, "dimension is 'many'; expected a whole number"),
        ("mf", {"dimension": "8.5"}, "dimension is '8.5'; expected a whole number"),
        ("mf", {"l2": "x"}, "l2 is 'x'; expected a number"),
        ("mf", {"loss": "hinge"}, "loss is 'hinge'; expected one of bce, bpr"),
        ("mf", {"bias": "1"}, "bias is '1'; expected one of true, false"),
        ("mf", {"items": "3"}, "items is no option to choose: it is the size of the data set"),
        ("fm", {"context": "day=7"}, "context is no option to choose: name columns"),
        ("two_tower", {"seed": "1"}, "seed is no option to choose: give --seed"),
    ],
)
def test_options_that_do_not_fit_are_named(
    recommender: str, texts: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        parse_options(recommender, texts)


def test_an_unknown_recommender_is_named() -> None:
    with pytest.raises(ExportError, match="no recommender 'mff'; expected one of linear, mf"):
        parse_options("mff", {})


def test_the_data_set_gives_catalogue_context_and_features() -> None:
    found = data(context=True)
    made = make_recommender(model("fm", dimension=4), found, seed=0)
    assert (made.items, dict(made.context)) == (found.item_count, {"day": 3})
    np.testing.assert_array_equal(made.get_buffer("features").numpy(), found.features)


def test_what_a_recommender_does_not_take_is_left_out() -> None:
    found = data(context=True)
    made = make_recommender(model("sasrec", dimension=4, history=5), found, seed=0)
    assert (made.items, made.context, made.history) == (found.item_count, {}, 5)
    assert made.batch is BatchKind.SEQUENCE
    assert takes("fm", "context")
    assert not takes("sasrec", "context")


def test_a_recommender_that_needs_features_says_so() -> None:
    with pytest.raises(RecommenderError, match="give features"):
        make_recommender(model("two_tower"), data(features=False), seed=0)


def own_factory(*, items: int, features: int = 8) -> Recommender:
    return RECOMMENDERS["mf"](items=items, dimension=features)


def test_a_number_that_a_factory_calls_features_is_an_option_of_it() -> None:
    name = f"{__name__}:own_factory"
    options = parse_options(name, {"features": "5"})
    assert options == {"features": 5}
    made = make_recommender(model(name, **options), data(), seed=0)
    assert made.get_parameter("item_rows").shape[1] == 5


def test_the_seed_is_the_start() -> None:
    first, again, other = (
        make_recommender(model("mf"), data(), seed=seed).get_parameter("item_rows")
        for seed in (1, 1, 2)
    )
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("recommender", [*RECOMMENDERS, "a.module:factory"])
def test_presets_fit_their_recommenders(recommender: str, dataset: str) -> None:
    values = preset(recommender, dataset)
    options = values.pop("options")
    TrainingPolicy(**{name: values[name] for name in ("learning_rate", "epochs", "batch_size")})
    Optimizer(values["optimizer"])
    if recommender in RECOMMENDERS:
        assert set(options) <= set(inspect.signature(RECOMMENDERS[recommender]).parameters)
    else:
        assert options == {}
