"""The command ``rivulet-fleet``: Ctrl-C ends it quietly, even while it still imports."""

import sys

__all__ = ["main"]

EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the command; gives its exit code, 130 if it was interrupted."""
    try:
        from device_sims.command import main as run

        return run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
