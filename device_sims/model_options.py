"""What a fleet trains, and how, as options of a command."""

import argparse

from device_sims.model import Model, parse_options, takes
from wire.manifest import Optimizer
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["add_model_options", "choose_model"]

# Options of recommenders that are common enough to be options of the command.
COMMON = {
    "dimension": "length of the vectors",
    "loss": "what is minimised",
    "l2": "decay of the user's vector",
}


def add_model_options(group: "argparse._ArgumentGroup") -> None:
    """Add the options that `choose_model` reads."""
    training, codec = TrainingPolicy(), CodecPolicy()
    group.add_argument(
        "--recommender",
        default="mf",
        metavar="NAME",
        help="linear, mf, neumf, fm, two_tower, sasrec, or your own as package.module:factory",
    )
    for name, text in COMMON.items():
        group.add_argument(f"--{name}", help=f"{text}, where the recommender has that")
    group.add_argument(
        "--option",
        action="append",
        type=_pair,
        metavar="NAME=VALUE",
        help="any other option of the recommender, as in `rivulet-export build NAME --help`",
    )
    group.add_argument(
        "--optimizer",
        type=Optimizer,
        choices=tuple(Optimizer),
        metavar="|".join(Optimizer),
        help="of the local update",
    )
    group.add_argument("--learning-rate", type=float, help="of the local optimizer")
    group.add_argument("--epochs", type=int, help="passes over the history in an update")
    group.add_argument("--batch-size", type=int, help="samples a step; windows for sasrec")
    group.add_argument(
        "--negatives", type=int, default=training.negatives, help="sampled for each positive"
    )
    group.add_argument(
        "--codec", choices=[str(mode) for mode in CodecMode], default=codec.mode, help="of deltas"
    )
    group.add_argument(
        "--nmse", type=float, default=codec.nmse, help="auto: largest squared error, relative"
    )
    group.add_argument("--bits", type=int, default=codec.bits, help="bits a value")
    group.add_argument(
        "--density", type=float, default=codec.density, help="top-k, rows, random: share kept"
    )
    group.add_argument("--rank", type=int, default=codec.rank, help="low-rank: rank")


def choose_model(arguments: argparse.Namespace, options: dict[str, object]) -> Model:
    """The model that the options describe.

    Args:
        arguments: parsed, and filled up from a preset.
        options: of the recommender, from the preset.

    Raises:
        ValueError: an option is wrong, or does not go with the recommender.
        ExportError: there is no such recommender.
        PolicyError: a number is out of range.
    """
    # First what is cheap to check: the recommender's own options need PyTorch.
    training = TrainingPolicy(
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        negatives=arguments.negatives,
        # The plan of the fleet says when a device trains.
        interval_s=0.0,
    )
    codec = CodecPolicy(
        mode=arguments.codec,
        nmse=arguments.nmse,
        bits=arguments.bits,
        density=arguments.density,
        rank=arguments.rank,
    )
    for name, flag in (("context", "--context-columns"), ("features", "--feature-columns")):
        asked = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
        if asked and not takes(arguments.recommender, name):
            raise ValueError(f"{flag} is given, but {arguments.recommender} takes no {name}")
    given = {name: getattr(arguments, name) for name in COMMON}
    texts = {name: text for name, text in given.items() if text is not None}
    return Model(
        recommender=arguments.recommender,
        options={
            **options,
            **parse_options(arguments.recommender, {**texts, **dict(arguments.option or ())}),
        },
        optimizer=arguments.optimizer,
        training=training,
        codec=codec,
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip().replace("-", "_"), value.strip()
