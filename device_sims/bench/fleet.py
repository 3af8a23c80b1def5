"""What the fleet simulator can do, every part beside its goal.

    python -m device_sims.bench.fleet --only digests torture --torture-hours 0.1

Each part is a process of its own, one after the other, so that the memory and the time of one are
not another's. A part that misses or fails does not stop the next.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["main", "parts"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(parts(1.0)), metavar="PART", help="%(choices)s"
    )
    parser.add_argument("--torture-hours", type=float, default=1.0, help="default: %(default)s")
    given = parser.parse_args(arguments)
    if not (0.0 < given.torture_hours < math.inf):
        parser.error(f"--torture-hours is {given.torture_hours:g}; expected a number above 0")
    failed = []
    for name, command in parts(given.torture_hours).items():
        if given.only and name not in given.only:
            continue
        print(f"\n== {name}", flush=True)
        try:
            code = subprocess.run([sys.executable, "-m", *command]).returncode
        except KeyboardInterrupt:
            return 130
        if code:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def parts(torture_hours: float) -> dict[str, list[str]]:
    """Module and arguments of each part, in the order in which they run."""
    return {
        "updates": ["device_sims.bench.simulated_updates"],
        "flower": ["device_sims.bench.flower.comparison"],
        "scale": ["device_sims.bench.scale"],
        "real": ["device_sims.bench.real_agents"],
        "digests": ["device_sims.bench.digests"],
        "torture": ["device_sims", "torture", "--hours", f"{torture_hours:g}"],
    }


if __name__ == "__main__":
    sys.exit(main())
