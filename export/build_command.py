"""The command ``rivulet-export build``: a recommender that ships, or one's own, into a bundle."""

import argparse
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.build import ROW_CAPACITY, build_bundle
from export.errors import RecommenderError
from export.factories import Factory, Option, find_factory, make_recommender, options_of
from export.programs import RUNTIMES
from export.recommender import Recommender
from wire.bundle import Bundle
from wire.manifest import Optimizer
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["build", "make", "recommender_of"]

RECORD_FILE = "build.json"
_OPTION = "recommender."


def build(name: str, words: Sequence[str]) -> None:
    """Build a bundle and print its folder and task.

    Args:
        name: a recommender from `export.recommenders`, or ``package.module:factory``.
        words: the rest of the command line: options of the recommender and of the bundle.

    Raises:
        SystemExit: the options are wrong, or ask for help.
        ExportError: the bundle cannot be built.
    """
    recommender, chosen = _recommender(name, words)
    bundle = build_bundle(
        recommender,
        out=chosen["out"],
        name=chosen["name"],
        optimizer=Optimizer(chosen["optimizer"]),
        runtimes=chosen["runtimes"],
        row_capacity=chosen["row_capacity"],
        training=TrainingPolicy(**_picked(chosen, TrainingPolicy)),
        codec=CodecPolicy(**_picked(chosen, CodecPolicy)),
        row_requests=chosen["row_requests"],
        overwrite=chosen["force"],
    )
    # Beside the bundle's own files: it is for the person who built it, not for the devices.
    record = json.dumps({"recommender": name, "options": list(words)}, indent=1)
    (bundle.root / RECORD_FILE).write_text(record + "\n")
    print(f"{bundle.root}: task {bundle.task}")


def recommender_of(bundle: Bundle) -> Recommender:
    """Make the recommender again that a bundle was built from by this command.

    Raises:
        ExportError: the folder does not say which one it was, or it cannot be made again.
    """
    path = bundle.root / RECORD_FILE
    try:
        record = json.loads(path.read_text())
        name, words = str(record["recommender"]), [str(word) for word in record["options"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise RecommenderError(
            f"{path} does not say how the bundle was built; give the recommender and its options "
            "again, as in: rivulet-export verify BUNDLE mf --items 3706"
        ) from None
    return _recommender(name, words)[0]


def make(name: str, words: Sequence[str]) -> Recommender:
    """Make a recommender from words like those of ``build``; ``--out`` is not needed."""
    return _recommender(name, [*words, "--out", "."])[0]


def _recommender(name: str, words: Sequence[str]) -> tuple[Recommender, dict[str, Any]]:
    factory = find_factory(name)
    chosen = vars(_parser(name, factory).parse_args(words))
    options = {
        option.removeprefix(_OPTION): value
        for option, value in chosen.items()
        if option.startswith(_OPTION)
    }
    return make_recommender(factory, options), chosen


def _picked(chosen: Mapping[str, Any], policy: type[Any]) -> dict[str, Any]:
    return {name: chosen[name] for name in policy.__dataclass_fields__}


def _parser(recommender: str, factory: Factory) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"rivulet-export build {recommender}",
        description=(inspect.getdoc(factory) or "").partition("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    try:
        _add_recommender(parser.add_argument_group(f"the recommender {recommender}"), factory)
        _add_bundle(parser.add_argument_group("the bundle"))
        _add_training(parser.add_argument_group("training on the device (can be steered later)"))
        _add_codec(parser.add_argument_group("encoding of updates (can be steered later)"))
    except argparse.ArgumentError as error:
        raise RecommenderError(
            f"the factory's argument has the name of an option of build: {error}; rename it"
        ) from None
    return parser


def _add_recommender(group: "argparse._ArgumentGroup", factory: Factory) -> None:
    for option in options_of(factory):
        flag = f"--{option.name.replace('_', '-')}"
        # What is not given is left to the factory, so its default is shown and not passed.
        settings: dict[str, Any] = {
            "dest": _OPTION + option.name,
            "default": argparse.SUPPRESS,
            "required": option.required,
            "help": _help(option),
        }
        if option.kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif option.kind is dict or option.kind is Mapping or option.choices:
            settings["metavar"] = "|".join(option.choices) or "NAME=SIZE,…"
            settings["type"] = _choice(option) if option.choices else _sizes
        else:
            settings["metavar"] = "FILE.npy" if option.kind is np.ndarray else option.name.upper()
            settings["type"] = _array if option.kind is np.ndarray else option.kind
        group.add_argument(flag, **settings)


def _help(option: Option) -> str:
    text = option.text.rstrip(".").replace("%", "%%") or option.kind.__name__
    shown = option.required or option.default is None or option.kind is dict
    return text if shown else f"{text} (default: {option.default})"


def _choice(option: Option) -> Any:
    def choose(text: str) -> Any:
        for value in option.choices:
            if str(value) == text:
                return value
        known = ", ".join(map(str, option.choices))
        raise argparse.ArgumentTypeError(f"{text!r} is none of {known}")

    return choose


def _sizes(text: str) -> dict[str, int]:
    pairs = (entry.partition("=") for entry in text.split(","))
    try:
        return {name.strip(): int(size) for name, _, size in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form hour=24,weekday=7") from None


def _array(path: str) -> Any:
    try:
        return np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {path} as a .npy file: {error}") from None


def _add_bundle(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write"
    )
    group.add_argument("--force", action="store_true", help="replace an earlier bundle in --out")
    group.add_argument("--name", help="what people call the task; the kind of model if not given")
    group.add_argument(
        "--runtimes",
        nargs="+",
        choices=tuple(RUNTIMES),
        default=["onnx"],
        help="engines to compile for; ort-training only in an environment that has it",
    )
    group.add_argument(
        "--row-capacity",
        type=int,
        default=ROW_CAPACITY,
        help="most item rows of an update on executorch and ort-training",
    )
    group.add_argument(
        "--row-requests",
        action="store_true",
        help="let devices ask for the rows they need, where that is less to download; the "
        "aggregator then learns which rows those are",
    )
    group.add_argument(
        "--optimizer",
        choices=[optimizer.value for optimizer in Optimizer],
        default=Optimizer.SGD.value,
        help="of the local update",
    )


def _add_training(group: "argparse._ArgumentGroup") -> None:
    default = TrainingPolicy()
    texts = {
        "learning_rate": "step size",
        "epochs": "passes over the history in an update",
        "batch_size": "samples a step",
        "negatives": "sampled negatives a positive",
        "interval_s": "least seconds between two updates of a device",
        "proximal": "FedProx: strength of the pull back to the base version",
        "clip": "largest L2 norm of a delta; 0 for none",
    }
    _add_fields(group, default, texts)


def _add_codec(group: "argparse._ArgumentGroup") -> None:
    default, modes = CodecPolicy(), [mode.value for mode in CodecMode]
    group.add_argument(
        "--codec",
        dest="mode",
        choices=modes,
        default=default.mode.value,
        help="how deltas are encoded",
    )
    texts = {
        "nmse": "auto: largest squared error of a tensor, relative to its energy",
        "bits": "bits a value: 1, 2, 4 or 8",
        "density": "top-k, rows, random: share that is kept",
        "rank": "low-rank: most factors",
        "residual_keep": "share of what was left out that is left an update later",
        "residual_updates": "updates after which it is dropped",
        "residual_bound": "most that it adds to a row, in usual lengths of a row",
        "row_scales": "a scale for each row",
        "all_rows": "name rows of which nothing is sent, too",
        "unbiased": "rows, random: round at random",
    }
    _add_fields(group, default, texts)


def _add_fields(
    group: "argparse._ArgumentGroup",
    default: TrainingPolicy | CodecPolicy,
    texts: Mapping[str, str],
) -> None:
    """An option for each of some fields of a policy; a unit in seconds is not in its name."""
    for name, text in texts.items():
        value = getattr(default, name)
        flag = f"--{name.removesuffix('_s').replace('_', '-')}"
        if isinstance(value, bool):
            action = argparse.BooleanOptionalAction
            group.add_argument(flag, dest=name, action=action, default=value, help=text)
        else:
            group.add_argument(flag, dest=name, type=type(value), default=value, help=text)
