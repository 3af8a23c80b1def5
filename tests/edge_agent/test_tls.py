"""TLS files that cannot be used are named; nobody is there to type a passphrase."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_agent.config import TlsFiles
from edge_agent.errors import ConfigError
from edge_agent.tls import tls_context

OPENSSL = shutil.which("openssl")


@pytest.mark.skipif(OPENSSL is None, reason="needs the openssl command")
@pytest.mark.parametrize("encrypted", [True, False])
def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path: Path, encrypted: bool) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    protection = ["-passout", "pass:secret"] if encrypted else ["-nodes"]
    subprocess.run(
        [
            *(OPENSSL or "", "req", "-x509", "-newkey", "rsa:2048", *protection),
            *("-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=device"),
        ],
        check=True,
        capture_output=True,
    )
    files = TlsFiles(cert=cert, key=key)
    if not encrypted:
        tls_context(files)
        return
    with pytest.raises(ConfigError, match=r"tls.key is .*key.pem; it is encrypted"):
        tls_context(files)
