"""Where the broker is, and how to be let in."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Broker", "BrokerError"]

PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerError(ValueError):
    """The broker's address or its TLS files are not usable; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One MQTT broker.

    Attributes:
        host: name or address.
        port: TCP port.
        client_id: names the session that the broker keeps while the aggregator is away.
        tls: encrypt; the broker's certificate is checked.
        username: None connects anonymously.
        password: goes with ``username``.
        ca: certificates to trust instead of the system's.
        cert: the aggregator's own certificate chain, where the broker asks for one.
        key: private key of ``cert``.
    """

    host: str
    port: int
    client_id: str
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
    ) -> Self:
        """From ``mqtt://host[:port]``, or ``mqtts://host[:port]`` for TLS.

        Raises:
            BrokerError: not such a URL.
        """
        expected = "expected mqtt://host[:port], or mqtts:// for TLS"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BrokerError(f"broker is {url!r} ({error}); {expected}") from None
        if parts.username is not None or parts.password is not None:
            raise BrokerError("broker has a user in its URL; set username and password instead")
        if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
            raise BrokerError(f"broker is {url!r}; {expected}")
        return cls(
            host=parts.hostname,
            port=PORTS[parts.scheme] if port is None else port,
            client_id=client_id,
            tls=parts.scheme == "mqtts",
            username=username,
            password=password,
            ca=ca,
            cert=cert,
            key=key,
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs, or None without TLS.

        Raises:
            BrokerError: a file cannot be read, or is not a certificate or key.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            raise BrokerError(f"tls.ca, tls.cert or tls.key is not usable: {error}") from None
        return context

    def __str__(self) -> str:
        """The address without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"
