"""The part of connecting that blocks: name lookup, TCP, TLS, and the first packet."""

import ssl
from dataclasses import dataclass

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.config import BrokerConfig

__all__ = ["KEEPALIVE_S", "QOS", "Will", "dial"]

KEEPALIVE_S = 60
DIAL_TIMEOUT_S = 10.0
SESSION_EXPIRY_S = 3600
QOS = 1


@dataclass(frozen=True, slots=True)
class Will:
    """What is retained on a topic once the connection is gone, for whatever reason."""

    topic: str
    payload: bytes


def dial(
    broker: BrokerConfig,
    *,
    client_id: str,
    protocol: MQTTProtocolVersion,
    tls: ssl.SSLContext | None,
    will: Will | None,
) -> Client:
    """Open a connection and send CONNECT; the answer is read by whoever gets the client.

    With MQTT 5 the broker keeps the session for an hour, so that receipts wait for a device that
    was away for a moment. MQTT 3.1.1 cannot limit it and goes without: updates are sent again.

    Raises:
        OSError: the network or TLS refused; ssl.SSLError is one.
        ValueError: host, port or credentials cannot be put into MQTT's terms.
    """
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=protocol,
        reconnect_on_failure=False,
    )
    client.connect_timeout = DIAL_TIMEOUT_S
    if tls is not None:
        client.tls_set_context(tls)
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if will is not None:
        client.will_set(will.topic, will.payload, QOS, retain=True)
    if protocol == MQTTProtocolVersion.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        client.connect(
            broker.host, broker.port, KEEPALIVE_S, clean_start=False, properties=properties
        )
    else:
        client.connect(broker.host, broker.port, KEEPALIVE_S)
    return client
