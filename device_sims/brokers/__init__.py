"""Brokers that a demo or a test starts, uses and stops."""

from device_sims.brokers.base import Broker, BrokerError
from device_sims.brokers.choice import start_broker
from device_sims.brokers.embedded import EmbeddedBroker
from device_sims.brokers.external import ExternalBroker
from device_sims.brokers.mosquitto import MosquittoBroker, find_mosquitto

__all__ = [
    "Broker",
    "BrokerError",
    "EmbeddedBroker",
    "ExternalBroker",
    "MosquittoBroker",
    "find_mosquitto",
    "start_broker",
]
