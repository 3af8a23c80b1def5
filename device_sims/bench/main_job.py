"""The main job on MovieLens-100K: 943 agents over MQTT, 40 passes, the fair protocol.

Prints each figure beside its goal and writes `runs/bench/main.json`. The centralised figures that
stand beside the quality were measured with the same protocol on the same data.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from device_sims.bench.figures import Figure, publish
"""
