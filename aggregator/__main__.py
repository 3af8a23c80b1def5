"""``python -m aggregator`` is ``rivulet-aggregator``."""

import sys

from aggregator.command import main

if __name__ == "__main__":
    sys.exit(main())
