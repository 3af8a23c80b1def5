"""Why a broker could not be reached or said no, in a sentence that says what to do."""

import socket
import ssl

from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import BrokerConfig
from edge_agent.errors import RefusedConnectionError

__all__ = ["explain_connack", "explain_dial_error", "explain_silence"]

BAD_CREDENTIALS, NOT_AUTHORISED, BANNED = 134, 135, 138


def explain_dial_error(error: Exception, broker: BrokerConfig) -> RefusedConnectionError:
    """From what the network said while connecting."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"its certificate is not trusted: {error.verify_message}; check tls.ca"
        return RefusedConnectionError(f"{broker.url}: {advice}", transient=False)
    if isinstance(error, ssl.SSLError):
        advice = f"TLS failed: {error.reason or error}; check that this port speaks TLS"
    elif isinstance(error, socket.gaierror):
        advice = f"the name {broker.host!r} is unknown: {error.strerror}"
    elif isinstance(error, ConnectionRefusedError):
        advice = "nothing listens there"
    elif isinstance(error, TimeoutError):
        advice = "no answer in time"
    else:
        advice = str(error) or type(error).__name__
    return RefusedConnectionError(f"cannot reach {broker.url}: {advice}", transient=True)


def explain_connack(reason: ReasonCode, broker: BrokerConfig) -> RefusedConnectionError:
    """From the reason code of the broker's answer."""
    if reason.value in (BAD_CREDENTIALS, NOT_AUTHORISED):
        who = f"user {broker.username!r}" if broker.username else "a client without user name"
        advice = f"{who} is refused ({reason}); check username and password"
        return RefusedConnectionError(f"{broker.url}: {advice}", transient=False)
    transient = reason.value != BANNED
    return RefusedConnectionError(f"{broker.url} refuses: {reason}", transient=transient)


def explain_silence(broker: BrokerConfig) -> RefusedConnectionError:
    """From a connection that was closed, or stayed silent, before the broker's answer."""
    hint = "does it want a client certificate?" if broker.tls else "does this port want TLS?"
    return RefusedConnectionError(
        f"{broker.url} gave no MQTT answer; {hint} Is it an MQTT broker?", transient=True
    )
