"""A broker that somebody else runs."""

from device_sims.brokers.base import Broker, BrokerError
from device_sims.processes import is_listening
from edge_agent.config import parse_broker_url

__all__ = ["ExternalBroker"]

CONNECT_DEADLINE_S = 5.0


class ExternalBroker(Broker):
    """A broker by its address; it is neither started nor stopped here.

    Args:
        url: ``mqtt://host:port`` or ``mqtts://host:port``.

    Raises:
        BrokerError: the address is not of that form, or nothing answers there.
    """

    kind = "external"

    def __init__(self, url: str) -> None:
        try:
            host, port, _ = parse_broker_url(url)
        except ValueError as error:
            raise BrokerError(f"broker is {url!r:.200}; expected {error}") from None
        if not is_listening(host, port, timeout_s=CONNECT_DEADLINE_S):
            raise BrokerError(f"no broker answers at {url}; is it running, and the port right?")
        self._url = url

    @property
    def url(self) -> str:
        """The address as given."""
        return self._url

    def describe(self) -> str:
        """For example ``the broker at mqtts://broker.example:8883``."""
        return f"the broker at {self._url}"

    def stop(self) -> None:
        """Nothing: it is not ours."""
