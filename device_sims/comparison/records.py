"""What finished runs left: a JSON file each, found again by a later call."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_sims.comparison.work import code_digest
from wire.errors import WireError

__all__ = ["RecordError", "Records"]

FORMAT = 1


class RecordError(WireError):
    """A file is not what a finished run leaves; the message names it."""


class Records:
    """The finished runs of a folder.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def find(self, key: str) -> Mapping[str, Any] | None:
        """What a run left, or None if it has not finished.

        Raises:
            RecordError: the file is something else.
        """
        path = self._path(key)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RecordError(f"cannot read {path}: {error}; remove it to repeat the run") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RecordError(f"{path} is of another format; remove it to repeat the run")
        return record

    def keep(self, key: str, result: Mapping[str, Any]) -> None:
        """Write down what a run left: whole, or not at all."""
        record = {"format": FORMAT, "key": key, "code": code_digest(), "result": result}
        path = self._path(key)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"
