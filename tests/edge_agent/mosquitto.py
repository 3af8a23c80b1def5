"""A real Mosquitto on a free port, with a password file, TLS, or neither."""

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MOSQUITTO", "Certificates", "Mosquitto", "free_port", "make_certificates"]

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
DEADLINE_S = 10.0


class Certificates:
    """A certificate authority, and certificates of a broker and of a device."""

    def __init__(self, root: Path) -> None:
        self.ca, self.cert, self.key = root / "ca.crt", root / "server.crt", root / "server.key"
        self.device_cert, self.device_key = root / "device.crt", root / "device.key"


def make_certificates(root: Path, device: str = "dev-1") -> Certificates:
    """Make them with openssl."""
    root.mkdir(parents=True, exist_ok=True)
    made = Certificates(root)
    authority = root / "ca.key"
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test-ca",
             "-keyout", authority, "-out", made.ca)  # fmt: skip
    names = root / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for subject, key, cert in (
        ("localhost", made.key, made.cert),
        (device, made.device_key, made.device_cert),
    ):
        request = root / f"{subject}.csr"
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={subject}",
                 "-keyout", key, "-out", request)  # fmt: skip
        _openssl("x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", authority,
                 "-CAcreateserial", "-days", "2", "-out", cert, "-extfile", names)  # fmt: skip
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker process, which can be stopped and started again on its port."""

    def __init__(
        self,
        root: Path,
        *,
        passwords: Mapping[str, str] | None = None,
        certificates: Certificates | None = None,
        client_certificates: bool = False,
        extra: str = "",
    ) -> None:
        self.port = free_port()
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        lines = [f"listener {self.port} 127.0.0.1", "user root", extra]
        if passwords is None:
            lines.append("allow_anonymous true")
        else:
            file = root / "passwords"
            file.write_text("".join(f"{user}:{word}\n" for user, word in passwords.items()))
            command = ["mosquitto_passwd", "-U", str(file)]
            subprocess.run(command, check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {file}"]
        if certificates is not None:
            lines += [
                f"cafile {certificates.ca}",
                f"certfile {certificates.cert}",
                f"keyfile {certificates.key}",
                f"require_certificate {str(client_certificates).lower()}",
            ]
        self._config, self._log = root / "mosquitto.conf", root / "mosquitto.log"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(MOSQUITTO), "-c", str(self._config)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise RuntimeError(f"Mosquitto did not start: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Mosquitto":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
