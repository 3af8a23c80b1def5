"""What a fleet trains: a recommender by its name, made to fit a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_sims.datasets import Interactions
from wire.manifest import Optimizer
from wire.policy import CodecPolicy, TrainingPolicy

if TYPE_CHECKING:
    from export.factories import Option
    from export.recommender import Recommender

__all__ = ["Model", "make_recommender", "parse_options", "takes"]

FROM_ELSEWHERE = {
    "items": "it is the size of the data set's catalogue",
    "context": "name columns of the data with --context-columns",
    "features": "name columns of the data with --feature-columns",
    "seed": "give --seed",
}
NUMBERS = ("items", "seed")
TEXT_KINDS = (int, float, bool, str)
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A recommender and how it is trained.

    Attributes:
        recommender: a name from `export.recommenders`, or ``package.module:factory``.
        options: keyword arguments of its factory, but for those that the data set gives.
        optimizer: of the local update.
        training: how a device trains.
        codec: how a device encodes what it learned.
    """

    recommender: str
    options: Mapping[str, Any]
    optimizer: Optimizer
    training: TrainingPolicy
    codec: CodecPolicy


def parse_options(recommender: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Turn options of a recommender from text into what its factory takes.

    Raises:
        ValueError: the recommender has no such option, or it takes another kind of value.
        ExportError: there is no such recommender.
    """
    options = _options(recommender)
    for name in texts:
        if name in FROM_ELSEWHERE and takes(recommender, name):
            raise ValueError(f"{name} is no option to choose: {FROM_ELSEWHERE[name]}")
        if name not in options:
            known = ", ".join(known for known in options if not takes(recommender, known))
            raise ValueError(f"{recommender} has no option {name!r}; it has {known or 'none'}")
    return {name: _parse(options[name], text) for name, text in texts.items()}


def takes(recommender: str, fact: str) -> bool:
    """Whether the recommender's factory has an argument for what the data set or the run gives.

    Args:
        recommender: its name.
        fact: ``items``, ``context``, ``features`` or ``seed``; a number or a text that a factory
            calls ``context`` or ``features`` is another thing, an option like any other.

    Raises:
        ExportError: there is no such recommender.
    """
    option = _options(recommender).get(fact)
    if option is None or fact not in FROM_ELSEWHERE:
        return False
    return fact in NUMBERS or option.kind not in TEXT_KINDS


def make_recommender(model: Model, interactions: Interactions, *, seed: int) -> "Recommender":
    """Make the recommender with the data set's catalogue, context and features, where it has any.

    Raises:
        ExportError: there is no such recommender.
        RecommenderError: an option is refused, or needs what the data set does not have.
    """
    from export import factories

    facts: dict[str, Any] = {"items": interactions.item_count, "seed": seed}
    if interactions.context:
        facts["context"] = {field.name: field.size for field in interactions.context}
    if interactions.feature_names:
        # A copy, since PyTorch refuses to share what cannot be written.
        facts["features"] = interactions.features.copy()
    taken = {name: value for name, value in facts.items() if takes(model.recommender, name)}
    factory = factories.find_factory(model.recommender)
    return factories.make_recommender(factory, {**taken, **model.options})


def _options(recommender: str) -> dict[str, "Option"]:
    # Only here: PyTorch takes seconds to import, and `--help` should not.
    from export.factories import find_factory, options_of

    return {option.name: option for option in options_of(find_factory(recommender))}


def _parse(option: "Option", text: str) -> Any:
    choices = {str(choice): choice for choice in option.choices} or (
        _TRUTH if option.kind is bool else {}
    )
    if choices:
        if text in choices:
            return choices[text]
        raise ValueError(f"{option.name} is {text!r}; expected one of {', '.join(choices)}")
    if option.kind not in TEXT_KINDS:
        raise ValueError(f"{option.name} cannot be given as text")
    try:
        return option.kind(text)
    except ValueError:
        kind = "a whole number" if option.kind is int else "a number"
        raise ValueError(f"{option.name} is {text!r}; expected {kind}") from None
