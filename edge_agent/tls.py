"""TLS contexts from PEM files, one for each distinct set of files in the process."""

import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

from edge_agent.config import TlsFiles
from edge_agent.errors import ConfigError

__all__ = ["tls_context"]


class _Socket(ssl.SSLSocket):
    """Closed by a handshake that fails: whoever asked for it never gets it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@lru_cache
def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client's context that checks the server's certificate and name.

    Raises:
        ConfigError: a file cannot be read or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls.ca is {files.ca}; it holds no certificates: {error}") from None
    context.sslsocket_class = _Socket
    if files.cert is not None:
        try:
            context.load_cert_chain(files.cert, files.key, password=_nobody_to_ask(files))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"tls.cert is {files.cert} and tls.key {files.key}; they are no pair: {error}"
            ) from None
    return context


def _nobody_to_ask(files: TlsFiles) -> Callable[[], NoReturn]:
    """Asked for only when the key is encrypted; without it OpenSSL would prompt on the terminal."""

    def refuse() -> NoReturn:
        raise ConfigError(
            f"tls.key is {files.key or files.cert}; it is encrypted, expected a key without "
            "passphrase: openssl pkey -in KEY -out PLAIN"
        )

    return refuse
