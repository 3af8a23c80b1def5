"""Recommenders by name, and the options that a factory's signature and docstring describe.

A factory is what makes a recommender from keyword arguments: one that ships
(`export.recommenders.RECOMMENDERS`), or a person's own, given as ``package.module:make``.
"""

import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from export.errors import RecommenderError
from export.recommender import Recommender
from export.recommenders import RECOMMENDERS

__all__ = ["Factory", "Option", "find_factory", "make_recommender", "options_of"]

Factory = Callable[..., Recommender]


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword argument of a factory.

    Attributes:
        name: as in the signature.
        kind: the annotated type, without None.
        choices: the values of a ``Literal``; empty for any.
        required: whether it has no default.
        default: its default.
        text: what the docstring says of it, on one line.
    """

    name: str
    kind: Any
    choices: tuple[Any, ...]
    required: bool
    default: Any
    text: str


def find_factory(name: str) -> Factory:
    """A factory by the name of a recommender that ships, or as ``package.module:attribute``.

    Modules are also looked for in the current folder.

    Raises:
        RecommenderError: there is none; the text says what was looked for, and where.
    """
    if name in RECOMMENDERS:
        return RECOMMENDERS[name]
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        known = ", ".join(RECOMMENDERS)
        raise RecommenderError(
            f"there is no recommender {name!r}; expected one of {known}, or your own as "
            "package.module:factory"
        )
    factory = _imported(module)
    for part in attribute.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError:
            raise RecommenderError(f"the module {module!r} has no {attribute!r}") from None
    if not callable(factory):
        raise RecommenderError(
            f"{name} is {factory!r:.80}; expected a function that makes a recommender"
        )
    found: Factory = factory
    return found


def options_of(factory: Factory) -> list[Option]:
    """The keyword arguments of a factory, in the order of its signature.

    Raises:
        RecommenderError: an argument that must be given has a type that text cannot be turned into.
    """
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    texts = _documented(inspect.getdoc(factory) or "")
    return [
        _option(parameter, hints.get(parameter.name, str), texts.get(parameter.name, ""))
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def make_recommender(factory: Factory, arguments: Mapping[str, Any]) -> Recommender:
    """Call a factory.

    Raises:
        RecommenderError: an argument is missing or refused, or the result is no `Recommender`.
    """
    try:
        recommender = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise RecommenderError(f"{_name(factory)}: {error}") from error
    if not isinstance(recommender, Recommender):
        raise RecommenderError(
            f"{_name(factory)} returned {type(recommender).__name__}; expected an "
            "export.recommender.Recommender"
        )
    return recommender


def _imported(module: str) -> Any:
    # A console script does not look there by itself; a person who wrote a module does.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise RecommenderError(
            f"there is no module {missing!r} on Python's path or in {os.curdir!r} ({here})"
        ) from None


def _option(parameter: inspect.Parameter, hint: Any, text: str) -> Option:
    kind, required = _without_none(hint), parameter.default is parameter.empty
    choices: tuple[Any, ...] = ()
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    if get_origin(kind) is not None:
        kind = get_origin(kind)
    default = None if required else parameter.default
    return Option(parameter.name, kind, choices, required, default, text)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0]
    return hint


def _documented(docstring: str) -> dict[str, str]:
    """The entries of a Google-style ``Args:`` section."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section.group(1), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _name(factory: Factory) -> str:
    return getattr(factory, "__qualname__", repr(factory))
