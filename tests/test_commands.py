"""The installed commands: what Ctrl-C does before they have begun."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
    "scripts"
]
DEADLINE_S = 60.0
# As the installed script does it, but a signal comes when the command's own module is looked for.
INTERRUPTED_AT_ITS_IMPORTS = """
import os, signal, sys
from importlib import import_module

module, function = sys.argv.pop(1).split(":")

class Finder:
    def find_spec(self, name, path, target=None):
        if name == module.split(".")[0] + ".command":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
sys.exit(getattr(import_module(module), function)())
"""


@pytest.mark.parametrize("target", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_ctrl_c_while_a_command_imports(target: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_ITS_IMPORTS, target, "--help"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
