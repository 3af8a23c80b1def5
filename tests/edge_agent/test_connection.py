"""One connection against a real Mosquitto: passwords, TLS, restarts, and what failures say."""

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edge_agent.connection
from edge_agent.config import BrokerConfig, TlsFiles
from edge_agent.connection import Connection
from edge_agent.dialing import Will
from edge_agent.errors import ConfigError
from edge_agent.reactor import Reactor
from edge_agent.tls import tls_context
from tests.edge_agent.mosquitto import (
    MOSQUITTO,
    Certificates,
    Mosquitto,
    free_port,
    make_certificates,
)
from tests.edge_agent.running import Recorder, Watcher, running_reactor, wait_until

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the mosquitto package")
STATUS = "rivulet/v1/devices/dev-1/status"


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reactor]:
    monkeypatch.setattr(edge_agent.connection, "FIRST_RECONNECT_S", 0.02)
    monkeypatch.setattr(edge_agent.connection, "LONGEST_RECONNECT_S", 0.1)
    with running_reactor() as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("pki"))


def connect(
    reactor: Reactor, port: int, *topics: str, host: str = "127.0.0.1", **options: Any
) -> tuple[Connection, Recorder]:
    heard = Recorder()
    connection = Connection(
        BrokerConfig(host=host, port=port, **options),
        reactor=reactor,
        client_id="dev-1",
        listener=heard,
        subscriptions=lambda: topics,
        will=Will(STATUS, b"offline"),
    )
    connection.start()
    return connection, heard


def stop(connection: Connection) -> None:
    closed = threading.Event()
    connection.stop(closed.set)
    wait_until(closed.is_set)


def test_messages_go_both_ways_and_stop_says_goodbye(tmp_path: Path, reactor: Reactor) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.port) as watcher:
        watcher.publish("down/retained", b"1", retain=True)
        connection, heard = connect(reactor, broker.port, "down/#")
        wait_until(lambda: ("down/retained", b"1") in heard.messages)
        big = bytes(500_000)
        watcher.publish("down/live", big)
        wait_until(lambda: ("down/live", big) in heard.messages)
        connection.publish("up/one", big)
        connection.publish("up/two", b"2")
        wait_until(lambda: watcher.heard("up/two"))
        assert watcher.heard("up/one") == [big]
        stop(connection)
        wait_until(lambda: watcher.heard(STATUS) == [b"offline"])
        assert heard.events == ["connected"]
        assert not heard.errors


def test_the_will_speaks_when_the_device_dies(tmp_path: Path, reactor: Reactor) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.port) as watcher:
        connection, heard = connect(reactor, broker.port)
        wait_until(lambda: heard.events)
        client = connection._client
        assert client is not None
        sock: Any = client.socket()
        sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: watcher.heard(STATUS) == [b"offline"])
        wait_until(lambda: heard.events == ["connected", "disconnected", "connected"])
        stop(connection)


def test_a_suspended_connection_is_gone_without_a_word_until_it_is_started(
    tmp_path: Path, reactor: Reactor
) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.port) as watcher:
        connection, heard = connect(reactor, broker.port, "down/#")
        for round_ in range(1, 4):
            wait_until(lambda: heard.events.count("connected") == round_)  # noqa: B023
            assert connection.is_accepted
            connection.suspend()
            # The will, which only the broker can have sent.
            wait_until(lambda: watcher.heard(STATUS) == [b"offline"] * round_)  # noqa: B023
            assert heard.events == ["connected", "disconnected"] * round_
            assert not connection.is_accepted
            # Meanwhile no attempt is waited for: nothing but `start` makes another one.
            assert "dial" not in connection._timers
            connection.start()
        wait_until(lambda: heard.events.count("connected") == 4)
        stop(connection)
        assert not heard.errors


def test_whoever_is_stopped_abruptly_leaves_the_goodbye_to_the_broker(
    tmp_path: Path, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mosquitto(tmp_path) as broker, Watcher(broker.port) as watcher:
        connection, heard = connect(reactor, broker.port)
        wait_until(lambda: heard.events)
        said: list[object] = []
        monkeypatch.setattr(connection, "_publish", lambda *words: said.append(words))
        closed = threading.Event()
        connection.stop(closed.set, abruptly=True)
        wait_until(closed.is_set)
        wait_until(lambda: watcher.heard(STATUS) == [b"offline"])
        assert said == []


def test_broker_restart_is_survived(tmp_path: Path, reactor: Reactor) -> None:
    with Mosquitto(tmp_path) as broker:
        connection, heard = connect(reactor, broker.port, "down/#")
        for round_ in range(1, 4):
            wait_until(lambda: heard.events.count("connected") == round_)  # noqa: B023
            broker.stop()
            wait_until(lambda: heard.events.count("disconnected") == round_)  # noqa: B023
            wait_until(lambda: heard.errors)
            assert "nothing listens there" in str(heard.errors[0])
            heard.errors.clear()
            broker.start()
        wait_until(lambda: heard.events.count("connected") == 4)
        with Watcher(broker.port) as watcher:
            watcher.publish("down/after", b"x")
            wait_until(lambda: ("down/after", b"x") in heard.messages)
        stop(connection)


def test_nothing_there_is_said_and_tried_again(tmp_path: Path, reactor: Reactor) -> None:
    port = free_port()
    connection, heard = connect(reactor, port)
    wait_until(lambda: len(heard.errors) >= 3)
    assert str(heard.errors[0]) == f"cannot reach mqtt://127.0.0.1:{port}: nothing listens there"
    assert heard.errors[0].transient
    stop(connection)
    assert heard.events == []


def test_an_unknown_name_is_said(reactor: Reactor) -> None:
    connection, heard = connect(reactor, 1883, host="no-such-host.invalid")
    wait_until(lambda: heard.errors)
    assert "the name 'no-such-host.invalid' is unknown" in str(heard.errors[0])
    stop(connection)


def test_password(tmp_path: Path, reactor: Reactor) -> None:
    with Mosquitto(tmp_path, passwords={"dev-1": "right"}) as broker:
        good, heard = connect(reactor, broker.port, username="dev-1", password="right")
        wait_until(lambda: heard.events == ["connected"])
        stop(good)
        bad, heard = connect(reactor, broker.port, username="dev-1", password="wrong")
        wait_until(lambda: len(heard.errors) >= 2)
        assert str(heard.errors[0]) == (
            f"mqtt://127.0.0.1:{broker.port}: user 'dev-1' is refused (Not authorized); "
            "check username and password"
        )
        assert not heard.errors[0].transient
        stop(bad)
        anonymous, heard = connect(reactor, broker.port)
        wait_until(lambda: heard.errors)
        assert "a client without user name is refused" in str(heard.errors[0])
        stop(anonymous)


def test_tls(tmp_path: Path, reactor: Reactor, certificates: Certificates) -> None:
    trusted = TlsFiles(ca=certificates.ca)
    with Mosquitto(tmp_path, certificates=certificates) as broker:
        connection, heard = connect(reactor, broker.port, "down/#", host="localhost", tls=trusted)
        wait_until(lambda: heard.events == ["connected"])
        big = bytes(800_000)
        connection.publish("down/echo", big)
        connection.publish("down/echo", b"end")
        wait_until(lambda: len(heard.messages) == 2)
        assert heard.messages[0] == ("down/echo", big)
        stop(connection)


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", ["untrusted", "no TLS at all", "TLS to a plain port"])
def test_tls_mistakes_are_named(
    tmp_path: Path, reactor: Reactor, certificates: Certificates, case: str
) -> None:
    plain = case == "TLS to a plain port"
    tls = {
        "untrusted": TlsFiles(),
        "no TLS at all": None,
        "TLS to a plain port": TlsFiles(ca=certificates.ca),
    }[case]
    expected = {
        "untrusted": "its certificate is not trusted",
        "no TLS at all": "gave no MQTT answer; does this port want TLS?",
        "TLS to a plain port": "check that this port speaks TLS",
    }[case]
    with Mosquitto(tmp_path, certificates=None if plain else certificates) as broker:
        connection, heard = connect(reactor, broker.port, host="localhost", tls=tls)
        wait_until(lambda: heard.errors)
        message = str(heard.errors[0])
        assert expected in message or (plain and "cannot reach" in message)
        assert heard.errors[0].transient is (case != "untrusted")
        stop(connection)


def test_client_certificates(tmp_path: Path, reactor: Reactor, certificates: Certificates) -> None:
    full = TlsFiles(ca=certificates.ca, cert=certificates.device_cert, key=certificates.device_key)
    with Mosquitto(tmp_path, certificates=certificates, client_certificates=True) as broker:
        connection, heard = connect(reactor, broker.port, host="localhost", tls=full)
        wait_until(lambda: heard.events == ["connected"])
        stop(connection)
        without = TlsFiles(ca=certificates.ca)
        connection, heard = connect(reactor, broker.port, host="localhost", tls=without)
        wait_until(lambda: heard.errors)
        assert "does it want a client certificate?" in str(heard.errors[0])
        stop(connection)


def test_a_failed_handshake_leaves_no_socket_open(certificates: Certificates) -> None:
    context = tls_context(TlsFiles(ca=certificates.ca))
    ours, theirs = socket.socketpair()
    wrapped = context.wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
    theirs.close()
    with pytest.raises((ssl.SSLEOFError, BrokenPipeError)):
        wrapped.do_handshake()
    assert wrapped.fileno() == -1


def test_unusable_tls_files_are_named(reactor: Reactor, certificates: Certificates) -> None:
    with pytest.raises(ConfigError, match=r"tls\.ca is .*; it holds no certificates"):
        connect(reactor, 1, tls=TlsFiles(ca=certificates.key))
    mixed = TlsFiles(ca=certificates.ca, cert=certificates.cert, key=certificates.device_key)
    with pytest.raises(ConfigError, match="they are no pair"):
        connect(reactor, 1, tls=mixed)


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [(bytes([0x20, 2, 0, 1]), [5, 4]), (b"", [5, 5, 4]), (None, [5, 4])],
    ids=["says so", "hangs up", "is silent"],
)
def test_a_broker_of_mqtt_3_1_1_only(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, refusal: bytes | None, expected: list[int]
) -> None:
    """The standard wants code 1 for an unknown protocol level; some hang up, amqtt is silent."""
    monkeypatch.setattr(edge_agent.connection, "FAREWELL_S", 0.05)
    monkeypatch.setattr(edge_agent.connection, "FIRST_ANSWER_WAIT_S", 0.2)
    levels: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    packet = client.recv(1024)
                    levels.append(packet[packet.index(b"MQTT") + 4])
                    new = levels[-1] == 5
                    answer = refusal if new else bytes([0x20, 2, 0, 0])
                    client.sendall(answer or b"")
                    while (not new or refusal is None) and client.recv(1024):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        connection, heard = connect(reactor, server.getsockname()[1])
        wait_until(lambda: heard.events == ["connected"])
        assert levels == expected
        stop(connection)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_silent_server_and_a_talkative_one(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_agent.connection, "ANSWER_WAIT_S", 0.05)
    monkeypatch.setattr(edge_agent.connection, "FIRST_ANSWER_WAIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection, heard = connect(reactor, silent.getsockname()[1])
        wait_until(lambda: len(heard.errors) >= 3)
        assert "gave no MQTT answer" in str(heard.errors[0])
        stop(connection)
    with socket.create_server(("127.0.0.1", 0)) as talkative:
        connection, heard = connect(reactor, talkative.getsockname()[1])
        for _ in range(3):
            client, _ = talkative.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)
        wait_until(lambda: len(heard.errors) >= 3)
        stop(connection)


def test_a_message_over_the_broker_s_limit_is_not_sent(
    tmp_path: Path, reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    """Sent, it would close the connection, be sent again, and so on for ever."""
    with (
        caplog.at_level(logging.ERROR),
        Mosquitto(tmp_path, extra="max_packet_size 2000") as broker,
        Watcher(broker.port) as watcher,
    ):
        connection, heard = connect(reactor, broker.port)
        wait_until(lambda: heard.events)
        connection.publish("up/big", bytes(3_000))
        connection.publish("up/small", bytes(300))
        wait_until(lambda: watcher.heard("up/small"))
        assert not watcher.heard("up/big")
        assert heard.events == ["connected"]
        assert "3000 bytes is over the limit" in caplog.text
        stop(connection)


def test_what_an_access_list_forbids_is_logged(
    tmp_path: Path, reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read down/#\n")
    with (
        caplog.at_level(logging.ERROR),
        Mosquitto(tmp_path / "broker", extra=f"acl_file {rules}") as broker,
    ):
        connection, heard = connect(reactor, broker.port, "down/#")
        wait_until(lambda: heard.events)
        connection.publish("up/one", b"x")
        wait_until(lambda: "refuses what dev-1 publishes: Not authorized" in caplog.text)
        stop(connection)


def test_stop_before_a_connection_is_made(reactor: Reactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection, _heard = connect(reactor, silent.getsockname()[1])
        stop(connection)
    connection, _heard = connect(reactor, free_port())
    stop(connection)
