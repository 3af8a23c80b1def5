"""The words to the service manager, over a real socket."""

import socket
from pathlib import Path

from edge_agent.systemd import ServiceManager


def test_words_reach_the_manager(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        manager = ServiceManager({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000000"})
        manager.ready()
        manager.alive()
        manager.stopping()
        heard = [server.recv(100) for _ in range(3)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    assert manager.alive_every_s == 15.0
    manager.alive()


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0rivulet-test-notify")
        ServiceManager({"NOTIFY_SOCKET": "@rivulet-test-notify"}).ready()
        assert server.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens() -> None:
    manager = ServiceManager({})
    manager.ready()
    assert manager.alive_every_s is None
    assert ServiceManager({"WATCHDOG_USEC": "soon"}).alive_every_s is None
