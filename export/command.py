"""The command ``rivulet-export``: build, show, verify and publish bundles."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError, RecommenderError
from export.publish import publish
from export.table import VERDICT_HEAD, bundle_table, verdict_line
from wire.bundle import read_bundle
from wire.errors import PolicyError, WireError

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


def _build(arguments: argparse.Namespace) -> None:
    # Here, so that the other subcommands do not wait for PyTorch.
    from export.build_command import build

    build(arguments.recommender, arguments.options)


def _verify(arguments: argparse.Namespace) -> None:
    from export.build_command import make, recommender_of
    from export.verify import verify

    bundle = read_bundle(arguments.bundle)
    if arguments.recommender:
        name, *options = arguments.recommender
        recommender = make(name, options)
    else:
        recommender = recommender_of(bundle)
    print(f"{VERDICT_HEAD}\n{'-' * len(VERDICT_HEAD)}")
    verdicts = []
    for verdict in verify(bundle, recommender, dict(arguments.python), seed=arguments.seed):
        print(verdict_line(verdict), flush=True)
        verdicts.append(verdict)
    tolerance = f"{verdicts[0].tolerance:.1e}"
    print(f"tolerance     {tolerance:>10}  (pytorch: float32 against float64)")
    if not all(verdict.good for verdict in verdicts):
        raise ExportError(f"a difference is over the tolerance of {tolerance}, or a runtime failed")
    if not any(verdict.available for verdict in verdicts[1:]):
        raise ExportError("none of the bundle's runtimes is installed")


def _interpreter(text: str) -> tuple[str, Path]:
    runtime, _, path = text.partition("=")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ort-training=env/bin/python")
    return runtime, Path(path)


def _show(arguments: argparse.Namespace) -> None:
    print(bundle_table(read_bundle(arguments.bundle)))


def _quantise(arguments: argparse.Namespace) -> None:
    from export.quantise import quantise

    size_bytes = quantise(read_bundle(arguments.bundle), arguments.parameters, arguments.out)
    print(f"{arguments.out}: {size_bytes:,} bytes")


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
    build = commands.add_parser(
        "build",
        help="compile a recommender into a bundle",
        epilog="`rivulet-export build mf --help` lists the options of matrix factorisation; "
        "what your own factory takes becomes its options.",
    )
    build.add_argument(
        "recommender",
        help="linear, mf, neumf, fm, two_tower, sasrec, or your own as package.module:factory",
    )
    build.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        help="options of the recommender and the bundle; RECOMMENDER --help lists them",
    )
    build.set_defaults(run=_build)
    show = commands.add_parser("show", help="check a bundle and print what is in it")
    show.add_argument("bundle", type=Path, help="folder of the bundle")
    show.set_defaults(run=_show)
    check = commands.add_parser(
        "verify",
        help="train some steps on every installed runtime and in PyTorch, and compare",
        description="Train a few steps from the same start and batches in PyTorch and on every "
        "runtime of the bundle that is installed. Fails when a runtime's change of the parameters "
        "differs from PyTorch's by more than rounding: 1e-5 of its length or, where the model "
        "itself is more sensitive, four times the difference of PyTorch's float32 from its "
        "float64, which the row of pytorch shows; never more than 1e-2.",
    )
    check.add_argument("bundle", type=Path, help="folder of the bundle")
    check.add_argument(
        "--python",
        type=_interpreter,
        action="append",
        default=[],
        metavar="RUNTIME=PATH",
        help="the Python of another environment that holds a runtime, for example "
        "ort-training=.venv-ort-training/bin/python",
    )
    check.add_argument("--seed", type=int, default=0, help="of the batches (default: 0)")
    check.add_argument(
        "--recommender",
        nargs=argparse.REMAINDER,
        help="what the bundle was built from and its options, as the last argument; needed only "
        "where `build` did not write it down",
    )
    check.set_defaults(run=_verify)
    small = commands.add_parser(
        "quantise",
        help="write a version's tables as int8, for scoring",
        description="Write the shared parameters of a version, item tables as int8 with a scale "
        "for each row, at about a quarter of the size. `rivulet-agent recommend --parameters FILE` "
        "scores with them; training goes on with float32.",
    )
    small.add_argument("bundle", type=Path, help="folder of the bundle")
    small.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="the version, from GET /v1/tasks/TASK/versions/N/parameters; default: the initial one",
    )
    small.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    small.set_defaults(run=_quantise)
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
