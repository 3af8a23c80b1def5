"""The devices that an operator lets in: one id a line of a file, read again when it changes."""

import logging
from pathlib import Path

from wire import topics
from wire.errors import MessageError

__all__ = ["Enrolment", "EnrolmentError"]

COMMENT = "#"

_log = logging.getLogger(__name__)


class EnrolmentError(Exception):
    """The file cannot be used; the message names it and the line."""


class Enrolment:
    """The enrolled devices, as the file says.

    Empty lines and what follows a ``#`` do not count. A file that cannot be used after a change
    leaves the devices as they were, so that a slip of the editor does not shut a fleet out.

    Args:
        file: where the ids are.

    Raises:
        EnrolmentError: the file cannot be used.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = self._state()
        self._devices = _read(file)

    def devices(self) -> frozenset[str]:
        """The devices that are enrolled now."""
        if (state := self._state()) != self._seen:
            self._seen = state
            try:
                self._devices = _read(self._file)
            except EnrolmentError as error:
                _log.error("the enrolled devices stay as they were: %s", error)
            else:
                _log.info("%d devices are enrolled", len(self._devices))
        return self._devices

    def _state(self) -> tuple[int, ...]:
        """What changes with the file; empty if it is not there."""
        try:
            found = self._file.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino


def _read(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EnrolmentError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise EnrolmentError(f"cannot read {file}: {error}") from None
    devices = set()
    for number, line in enumerate(lines, start=1):
        if device := line.partition(COMMENT)[0].strip():
            try:
                devices.add(topics.check_device_id(device))
            except MessageError as error:
                raise EnrolmentError(f"{file}, line {number}: {error}") from None
    return frozenset(devices)
