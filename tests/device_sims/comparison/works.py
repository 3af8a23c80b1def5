"""Work for pools that is done at once, never, or badly; in a module that other processes find."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """What to do is its name: `double`, `fail`, `die`, `exit` or `wait`."""

    key: str
    what: str = "double"
    number: int = 1

    @property
    def title(self) -> str:
        return f"{self.what} {self.number}"

    def __call__(self, folder: Path, progress: Callable[[float], object]) -> dict[str, Any]:
        assert folder.is_dir()
        assert not list(folder.iterdir())
        (folder / "scratch").write_text("x")
        progress(0.5)
        if self.what == "fail":
            raise ValueError("it does not fit")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "exit":
            os._exit(3)
        if self.what == "wait":
            time.sleep(3600.0)
        return {"number": 2 * self.number, "process": os.getpid()}
