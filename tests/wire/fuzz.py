"""Search for bytes that break a decoder of the wire: see fuzzing.py for what must hold.

Guided by coverage where atheris is installed, which has no wheel for every machine and Python;
elsewhere by random changes of real messages.
"""

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Check = Callable[[bytes], None]

FOLDER = Path("runs/fuzz")
CORPUS = FOLDER / "corpus"
MAX_HELD_MB = 2048
MAX_STUCK_S = 60


def main() -> None:
    options = _options()
    try:
        import atheris
    except ImportError:
        atheris = None
    if atheris is None:
        from tests.wire.fuzzing import check, first_inputs
    else:
        with atheris.instrument_imports(include=["wire"]):
            from tests.wire.fuzzing import check, first_inputs
    if options.input:
        check(options.input.read_bytes())
        print(f"{options.input}: nothing is wrong with it")
        return
    inputs = first_inputs()
    _seed(inputs)
    print(
        f"{len(inputs)} inputs to start from are in {CORPUS}; one that fails is kept in {FOLDER}/,"
    )
    print("as crash-*, timeout-* or oom-*; python -m tests.wire.fuzz --input FILE runs it again")
    if atheris is None:
        print("no atheris for this Python and machine: random changes, not guided by coverage")
        _search(check, inputs, options.seconds)
    else:
        atheris.Setup([sys.argv[0], *_libfuzzer(options.seconds)], check)
        atheris.Fuzz()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long to search")
    parser.add_argument("--input", type=Path, help="check this one input and stop")
    return parser.parse_args()


def _seed(inputs: Sequence[bytes]) -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (CORPUS / _digest(data)).write_bytes(data)


def _libfuzzer(seconds: int) -> list[str]:
    from tests.wire.fuzzing import MAX_SEED_BYTES

    return [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_SEED_BYTES}",
        f"-timeout={MAX_STUCK_S}",
        f"-rss_limit_mb={MAX_HELD_MB}",
        f"-artifact_prefix={FOLDER}/",
        "-print_final_stats=1",
        str(CORPUS),
    ]


def _search(check: Check, inputs: Sequence[bytes], seconds: int) -> None:
    from tests.wire.fuzzing import mutated

    rng, tried = random.Random(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(inputs, rng)
        try:
            check(data)
        except BaseException:
            path = FOLDER / f"crash-{_digest(data)}"
            path.write_bytes(data)
            print(f"an input that fails is kept: {path}")
            raise
        tried += 1
    print(f"{tried} inputs, and nothing is wrong with them")


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
