"""A real PostgreSQL server in a temporary folder, for tests and benchmarks."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, create_engine, text

from device_sims.processes import free_port

__all__ = ["PASSWORD", "USER", "PostgreSQL", "installed"]

USER, PASSWORD = "rivulet", "open-sesame/@%"
DEADLINE_S = 20.0
DEBIAN = Path("/usr/lib/postgresql")


def installed() -> Path | None:
    """Where the newest server's programs are, if one is installed."""
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name))
    found = [folder for folder in folders if (folder / "initdb").exists()]
    elsewhere = shutil.which("initdb")
    if found:
        return found[-1]
    return Path(elsewhere).parent if elsewhere else None


class PostgreSQL:
    """A cluster in a temporary folder; ``kill`` and ``start`` it at will.

    It asks for a password on every connection.

    Args:
        durable: whether a commit waits for the disk, as it must where the machine may lose power.

    Raises:
        RuntimeError: PostgreSQL is not installed, or does not start.
    """

    def __init__(self, *, durable: bool = False) -> None:
        programs = installed()
        if programs is None:
            raise RuntimeError("the package postgresql is not installed")
        self._fsync = "on" if durable else "off"
        self._programs = programs
        self.port = free_port()
        # Not below a folder of a test or of root, which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="rivulet-postgresql-"))
        self._cluster = self.folder / "cluster"
        self._as_user = _another_user(self.folder)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb",
            *("--pgdata", str(self._cluster), "--username", USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        )

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 "
            f"-c fsync={self._fsync} "
            "-c synchronous_commit=on -c shared_buffers=16MB -c max_connections=60"
        )
        log = str(self.folder / "log")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._run(
                    "pg_ctl", "-D", str(self._cluster), "-l", log, "-w", "-o", options, "start"
                )
            except RuntimeError:
                # The children of a server that was killed may hold its memory a little longer.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """Stop it at once and end every connection."""
        self._run("pg_ctl", "-D", str(self._cluster), "-m", "fast", "-w", "stop")

    def kill(self) -> None:
        """``kill -9`` of the server; its children end when they notice."""
        pid = int((self._cluster / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        while (Path("/proc") / str(pid)).exists():
            time.sleep(0.01)

    def url(self, database: str = "postgres", *, password: str | None = PASSWORD) -> str:
        """Of one of its databases."""
        url = URL.create(
            "postgresql",
            username=USER,
            password=password,
            host="127.0.0.1",
            port=self.port,
            database=database,
        )
        return url.render_as_string(hide_password=False)

    def create_database(self) -> str:
        """A new empty database; returns its URL."""
        name = f"ledger_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def hang_up(self, url: str) -> None:
        """End every connection to a database."""
        name = url.rpartition("/")[2]
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    def execute(self, statement: str) -> None:
        """Run a statement that cannot be part of a transaction."""
        url = self.url().replace("postgresql:", "postgresql+psycopg:", 1)
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if (self._cluster / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._cluster), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._as_user,
            group=self._as_user,
            extra_groups=None if self._as_user is None else [],
            cwd=self.folder,
            # A pipe would be held open by the server.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            log = self.folder / "log"
            said = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}. {said}")


def _another_user(folder: Path) -> str | None:
    """The server refuses to run as root: then it gets the folder and runs as somebody else."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    shutil.chown(folder, name)
    return name
