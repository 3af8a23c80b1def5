"""An MQTT client that reads and writes its connection in large portions.

paho asks its socket for a byte, for the length, for the rest, and writes packet by packet: five
system calls for a message that is acknowledged. Here a buffer stands between paho and the socket,
so that under load one call carries a hundred messages.
"""

import ssl
from typing import Any

from paho.mqtt.client import Client

__all__ = ["PortionClient", "Portions"]

PORTION_BYTES = 1 << 16
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Portions:
    """A connection with a buffer for each direction; all of a socket that paho uses.

    What is sent waits for ``flush``, or for a full portion.

    Args:
        connection: a connected socket, perhaps of TLS.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._read, self._at = b"", 0
        self._unsent = bytearray()

    def recv(self, most_bytes: int) -> bytes:
        """Some bytes, none at the end; raises what the connection raises, BlockingIOError too."""
        if self._at == len(self._read):
            self._read, self._at = self._connection.recv(PORTION_BYTES), 0
        found = self._read[self._at : self._at + most_bytes]
        self._at += len(found)
        return found

    def send(self, data: bytes | bytearray) -> int:
        """Take all of it, to be sent soon; raises BlockingIOError while a portion waits."""
        if len(self._unsent) >= PORTION_BYTES:
            self.flush()
            if len(self._unsent) >= PORTION_BYTES:
                raise BlockingIOError
        self._unsent += data
        return len(data)

    def flush(self) -> None:
        """Send what the connection takes without waiting; raises OSError when it is gone."""
        while self._unsent:
            try:
                sent = self._connection.send(self._unsent)
            except NOT_NOW:
                return
            del self._unsent[:sent]

    @property
    def unread(self) -> bool:
        """Whether bytes wait here, which no selector sees."""
        return self._at < len(self._read) or self.pending() > 0

    @property
    def unsent(self) -> bool:
        """Whether something waits for ``flush``."""
        return bool(self._unsent)

    def pending(self) -> int:
        """Bytes that TLS has decrypted and nobody has read."""
        pending = getattr(self._connection, "pending", None)
        return int(pending()) if pending is not None else 0

    def fileno(self) -> int:
        """Of the connection."""
        return int(self._connection.fileno())

    def setblocking(self, flag: bool) -> None:
        """Of the connection."""
        self._connection.setblocking(flag)

    def close(self) -> None:
        """Send what can be sent at once, and close."""
        try:
            self.flush()
        except OSError:
            pass
        finally:
            self._connection.close()


class PortionClient(Client):
    """paho's client over ``Portions``; its ``socket()`` is one."""

    # The name is private to paho and was read in 2.2.0. A release that renames it gives plain
    # sockets, and fails our tests.
    def _create_socket(self) -> Any:
        return Portions(super()._create_socket())  # type: ignore[no-untyped-call, unused-ignore]
