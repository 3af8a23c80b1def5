"""Devices that keep sending, each update until it is answered, from a thread of the test."""

import threading
import time
from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.aggregator.device import Device, eventually
from tests.aggregator.workshop import make_update
from wire.bundle import Bundle
from wire.messages import Outcome

__all__ = ["Fleet"]

IN_FLIGHT = 4
RESEND_AFTER_S = 2.0
FINISH_S = 60.0


class Fleet:
    """Devices under one roof.

    Args:
        port: the broker's.
        bundle: the task that they train; it must exist.
        devices: how many.
    """

    def __init__(self, port: int, bundle: Bundle, devices: int) -> None:
        self._bundle = bundle
        self._devices = [Device(port, f"device-{n}") for n in range(devices)]
        self._sent: dict[tuple[str, int], tuple[bytes, float]] = {}
        self._next = Counter({device.name: 1 for device in self._devices})
        self._finishing, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        for device in self._devices:
            self._opened.enter_context(device)
        eventually(lambda: all(device.announcements for device in self._devices))
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._opened.close()

    @property
    def answered(self) -> dict[tuple[str, int], set[Outcome]]:
        """What each update was answered, by (device, sequence)."""
        found: dict[tuple[str, int], set[Outcome]] = {}
        for device in self._devices:
            for receipt in list(device.receipts):
                found.setdefault((device.name, receipt.sequence), set()).add(receipt.outcome)
        return found

    @property
    def announced(self) -> int:
        """The newest version that the first device has heard of."""
        return self._devices[0].announcements[-1].version

    def go_on(self, updates: int = 40) -> None:
        """Wait until so many more updates are answered, and another version is announced."""
        answers, version = len(self.answered), self.announced
        eventually(
            lambda: len(self.answered) >= answers + updates and self.announced > version,
            deadline_s=FINISH_S,
        )

    def finish(self) -> None:
        """Send nothing new, and wait until all that was sent is answered."""
        self._finishing.set()
        eventually(lambda: self._sent.keys() <= self.answered.keys(), deadline_s=FINISH_S)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            answered = self.answered
            for device in self._devices:
                mine = [key for key in self._sent if key[0] == device.name and key not in answered]
                for key in mine:
                    payload, at = self._sent[key]
                    if time.monotonic() - at > RESEND_AFTER_S:
                        self._send(device, key, payload)
                if not self._finishing.is_set():
                    for _ in range(IN_FLIGHT - len(mine)):
                        self._send_next(device)

    def _send_next(self, device: Device) -> None:
        number = self._next[device.name]
        self._next[device.name] += 1
        base = device.announcements[-1].version
        update = make_update(self._bundle, number, seed=number, base=base)
        self._send(device, (device.name, number), update.encode())

    def _send(self, device: Device, key: tuple[str, int], payload: bytes) -> None:
        self._sent[key] = (payload, time.monotonic())
        device.send(payload)
