"""Which broker to run."""

from collections.abc import Mapping
from pathlib import Path

from device_sims.brokers.base import Broker
from device_sims.brokers.embedded import EmbeddedBroker
from device_sims.brokers.external import ExternalBroker
from device_sims.brokers.mosquitto import MosquittoBroker, find_mosquitto

__all__ = ["start_broker"]


def start_broker(choice: str, directory: Path, users: Mapping[str, str]) -> Broker:
    """Start, or find, the broker that was asked for.

    Args:
        choice: ``mosquitto``, ``embedded``, a ``mqtt://`` or ``mqtts://`` URL, or ``auto`` for
            Mosquitto where it is installed and the embedded one elsewhere.
        directory: folder for what the broker writes.
        users: password by user name for Mosquitto; the embedded broker lets everyone in, and a
            broker at a URL has users of its own.

    Raises:
        BrokerError: it cannot be started or reached.
    """
    if choice == "mosquitto":
        return MosquittoBroker(directory, users)
    if choice == "embedded":
        return EmbeddedBroker(directory)
    if choice == "auto":
        if find_mosquitto() is not None:
            return MosquittoBroker(directory, users)
        return EmbeddedBroker(directory, reason="mosquitto is not installed")
    return ExternalBroker(choice)
