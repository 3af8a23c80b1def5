"""The command ``rivulet-export``: build, show and publish bundles."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError, RecommenderError
from export.publish import publish
from export.table import bundle_table
from wire.bundle import read_bundle
from wire.errors import PolicyError, WireError
from wire.policy import CodecMode, CodecPolicy, TrainingPolicy

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
TOKEN_VARIABLE = "RIVULET_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        0 if done, 1 if it failed, 2 if an argument is wrong.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("export").setLevel(logging.INFO)
    try:
        arguments.run(arguments)
    except (PolicyError, RecommenderError) as error:
        return _fail(error, EXIT_USAGE)
    except (ExportError, WireError, OSError) as error:
        return _fail(error, EXIT_FAILED)
    return 0


def _fail(error: Exception, code: int) -> int:
    print(f"rivulet-export: error: {error}", file=sys.stderr)
    return code


def _build_mf(arguments: argparse.Namespace) -> None:
    training = TrainingPolicy(
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        negatives=arguments.negatives,
        interval_s=arguments.interval,
    )
    codec = CodecPolicy(
        mode=arguments.codec, bits=arguments.bits, density=arguments.density, rank=arguments.rank
    )
    # Here, so that wrong arguments and the other subcommands do not wait for PyTorch.
    from export.build import build_mf

    bundle = build_mf(
        items=arguments.items,
        dimension=arguments.dimension,
        loss=arguments.loss,
        bias=arguments.bias,
        l2=arguments.l2,
        item_spread=arguments.item_spread,
        user_spread=arguments.user_spread,
        seed=arguments.seed,
        name=arguments.name,
        training=training,
        codec=codec,
        out=arguments.out,
        overwrite=arguments.force,
    )
    print(f"{bundle.root}: task {bundle.task}")


def _show(arguments: argparse.Namespace) -> None:
    print(bundle_table(read_bundle(arguments.bundle)))


def _publish(arguments: argparse.Namespace) -> None:
    token = arguments.token or os.environ.get(TOKEN_VARIABLE)
    print(publish(read_bundle(arguments.bundle), arguments.to, token=token))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rivulet-export",
        description="Turn a recommender into a bundle: the manifest, the training program for "
        "devices, a scorer and the initial parameters.",
        epilog="example: rivulet-export build mf --items 3706 --out bundle && "
        "rivulet-export publish bundle --to http://localhost:8080",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="compile a recommender into a bundle")
    recommenders = build.add_subparsers(required=True, metavar="RECOMMENDER")
    _add_mf(recommenders)
    show = commands.add_parser("show", help="check a bundle and print what is in it")
    show.add_argument("bundle", type=Path, help="folder of the bundle")
    show.set_defaults(run=_show)
    send = commands.add_parser(
        "publish",
        help="hand a bundle to an aggregator",
        description="Upload a bundle and print the name of its task. Publishing the same bundle "
        "again is harmless.",
    )
    send.add_argument("bundle", type=Path, help="folder of the bundle")
    send.add_argument("--to", required=True, metavar="URL", help="aggregator, http://host:port")
    send.add_argument("--token", help=f"bearer token; default: the variable {TOKEN_VARIABLE}")
    send.set_defaults(run=_publish)
    return parser


def _add_mf(recommenders: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    mf = recommenders.add_parser(
        "mf",
        help="matrix factorisation: a private user vector, a row for each item",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # Without a default at all, or the help would show one for what has to be given.
    none = argparse.SUPPRESS
    mf.add_argument("--items", type=int, required=True, default=none, help="size of the catalogue")
    mf.add_argument("--out", type=Path, required=True, default=none, help="folder to write")
    mf.add_argument("--force", action="store_true", help="replace an earlier bundle in --out")
    mf.add_argument("--name", default="mf", help="what people call the task")
    mf.add_argument("--dimension", type=int, default=32, help="length of the vectors")
    mf.add_argument(
        "--loss",
        choices=("bce", "bpr"),
        default="bce",
        help="bce learns how likely an item is, bpr which of two is preferred",
    )
    mf.add_argument("--bias", action="store_true", help="give each item a bias")
    mf.add_argument("--l2", type=float, default=0.01, help="penalty on the user's vector")
    mf.add_argument("--item-spread", type=float, default=0.03, help="deviation of rows at start")
    mf.add_argument("--user-spread", type=float, default=0.1, help="the same of the user's vector")
    mf.add_argument("--seed", type=int, default=0, help="seed of the start")
    mf.set_defaults(run=_build_mf)
    _add_training(mf.add_argument_group("training on the device (can be steered later)"))
    _add_codec(mf.add_argument_group("encoding of updates (can be steered later)"))


def _add_training(group: "argparse._ArgumentGroup") -> None:
    default = TrainingPolicy()
    rate, interval = default.learning_rate, default.interval_s
    group.add_argument("--learning-rate", type=float, default=rate, help="step size of SGD")
    group.add_argument("--epochs", type=int, default=default.epochs, help="passes an update")
    group.add_argument("--batch-size", type=int, default=default.batch_size, help="samples a step")
    group.add_argument(
        "--negatives", type=int, default=default.negatives, help="sampled negatives a positive"
    )
    group.add_argument(
        "--interval", type=float, default=interval, help="least seconds between two updates"
    )


def _add_codec(group: "argparse._ArgumentGroup") -> None:
    default, modes = CodecPolicy(), [mode.value for mode in CodecMode]
    group.add_argument(
        "--codec", choices=modes, default=default.mode.value, help="how rows are encoded"
    )
    group.add_argument("--bits", type=int, default=default.bits, help="bits a value: 1, 2, 4 or 8")
    group.add_argument(
        "--density", type=float, default=default.density, help="share of entries top-k keeps"
    )
    group.add_argument("--rank", type=int, default=default.rank, help="rank of low-rank factors")
