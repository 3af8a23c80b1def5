"""What every broker here has in common, whoever runs it."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Broker", "BrokerError"]


class BrokerError(Exception):
    """A broker could not be started or reached; the text says what to do."""


class Broker(ABC):
    """An MQTT broker that listens from construction until `stop`, also usable with ``with``.

    Attributes:
        kind: ``mosquitto``, ``embedded`` or ``external``, for a report.
    """

    kind: str

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect: ``mqtt://host:port`` or ``mqtts://host:port``."""

    @abstractmethod
    def describe(self) -> str:
        """One line for a person: which broker, where, and why this one."""

    @abstractmethod
    def stop(self) -> None:
        """Stop what this object started; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
