import os
import queue
import resource
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from aggregator.mqtt import SELF_TEST_DEVICE
from device_sims.brokers import (
    Broker,
    BrokerError,
    EmbeddedBroker,
    ExternalBroker,
    MosquittoBroker,
    find_mosquitto,
    start_broker,
)
from device_sims.brokers import choice as choice_module
from device_sims.brokers.mosquitto import configuration_directory
from device_sims.processes import is_listening
from edge_agent.config import parse_broker_url
from wire import topics

DEADLINE_S = 20.0
TASK = "0" * 32
USERS = {"aggregator": "merge-it", "dev-1": "first", "dev-2": "second"}
NOT_AUTHORIZED, BAD_PASSWORD, TOO_LARGE = 135, 134, 149
UNSUPPORTED_VERSION = 132

needs_mosquitto = pytest.mark.skipif(
    find_mosquitto() is None, reason="mosquitto and mosquitto_passwd are not installed"
)


class Client:
    """A paho client whose callbacks become queues that a test waits on."""

    def __init__(
        self,
        broker: Broker,
        user: str | None,
        password: str | None = None,
        *,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        client_id: str | None = None,
        tls: ssl.SSLContext | None = None,
        keep_session: bool = False,
    ) -> None:
        self.connected: queue.Queue[ReasonCode] = queue.Queue()
        self.disconnected: queue.Queue[ReasonCode] = queue.Queue()
        self.published: queue.Queue[ReasonCode] = queue.Queue()
        self.subscribed: queue.Queue[list[ReasonCode]] = queue.Queue()
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        five = protocol is MQTTProtocolVersion.MQTTv5
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id if client_id is not None else (user or "somebody"),
            protocol=protocol,
            clean_session=None if five else not keep_session,
        )
        if user is not None:
            self.mqtt.username_pw_set(user, password if password is not None else USERS.get(user))
        if tls is not None:
            self.mqtt.tls_set_context(tls)
        self.mqtt.on_connect = lambda _c, _u, _f, reason, _p: self.connected.put(reason)
        self.mqtt.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnected.put(reason)
        self.mqtt.on_publish = lambda _c, _u, _mid, reason, _p: self.published.put(reason)
        self.mqtt.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subscribed.put(reasons)
        self.mqtt.on_message = lambda _c, _u, m: self.received.put((m.topic, bytes(m.payload)))
        host, port, _ = parse_broker_url(broker.url)
        extra: dict[str, Any] = {}
        if five:
            extra["clean_start"] = not keep_session
            extra["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            extra["properties"].SessionExpiryInterval = 3600 if keep_session else 0
        self.mqtt.connect(host, port, **extra)
        self.mqtt.loop_start()

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        self.mqtt.publish(topic, payload, qos=1, retain=retain)
        reason = self.published.get(timeout=DEADLINE_S)
        # 16 is a success as well: nobody has subscribed.
        return reason.value if reason.is_failure else 0

    def subscribe(self, topic: str) -> list[int]:
        self.mqtt.subscribe(topic, qos=1)
        return [int(reason.value) for reason in self.subscribed.get(timeout=DEADLINE_S)]

    def next_message(self) -> tuple[str, bytes]:
        return self.received.get(timeout=DEADLINE_S)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


Connect = Callable[..., Client]


@contextmanager
def clients() -> Iterator[Connect]:
    """Makes connected clients, and closes them all."""
    made: list[Client] = []

    def connect(
        broker: Broker, user: str | None, password: str | None = None, **how: Any
    ) -> Client:
        client = Client(broker, user, password, **how)
        made.append(client)
        reason = client.connected.get(timeout=DEADLINE_S)
        assert not reason.is_failure, reason
        return client

    try:
        yield connect
    finally:
        for client in made:
            client.close()


@pytest.fixture(scope="module")
def shared_mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoBroker]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto and mosquitto_passwd are not installed")
    with MosquittoBroker(tmp_path_factory.mktemp("mosquitto"), USERS) as broker:
        yield broker


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_everyone_may_do_what_the_protocol_needs(shared_mosquitto: MosquittoBroker) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        device = connect(shared_mosquitto, "dev-1")
        aggregator.subscribe(topics.ALL_UPDATES)
        aggregator.subscribe(topics.ALL_STATUSES)
        device.subscribe(topics.receipts("dev-1"))
        device.subscribe(topics.ALL_ANNOUNCEMENTS)

        assert device.publish(topics.updates("dev-1"), b"update") == 0
        assert aggregator.next_message() == (topics.updates("dev-1"), b"update")
        assert device.publish(topics.status("dev-1"), b"status", retain=True) == 0
        assert aggregator.next_message() == (topics.status("dev-1"), b"status")
        assert aggregator.publish(topics.receipts("dev-1"), b"receipt") == 0
        assert device.next_message() == (topics.receipts("dev-1"), b"receipt")
        assert aggregator.publish(topics.announcement(TASK), b"version", retain=True) == 0
        assert device.next_message() == (topics.announcement(TASK), b"version")


@pytest.mark.parametrize("device", ["aggregator", SELF_TEST_DEVICE])
def test_the_aggregator_can_check_that_its_subscription_delivers(
    shared_mosquitto: MosquittoBroker, device: str
) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        aggregator.subscribe(topics.ALL_UPDATES)
        topic = topics.updates(device)
        assert aggregator.publish(topic, b"am I heard") == 0
        assert aggregator.next_message() == (topic, b"am I heard")


@pytest.mark.parametrize(
    "topic",
    [
        topics.updates("dev-2"),
        topics.status("dev-2"),
        topics.receipts("dev-1"),
        topics.receipts("dev-2"),
        topics.announcement(TASK),
        "something/else",
    ],
)
def test_a_device_may_not_publish_as_another_or_as_the_aggregator(
    shared_mosquitto: MosquittoBroker, topic: str
) -> None:
    with clients() as connect:
        assert connect(shared_mosquitto, "dev-1").publish(topic) == NOT_AUTHORIZED


def test_a_forbidden_publish_looks_like_a_success_in_mqtt_3_and_reaches_nobody(
    shared_mosquitto: MosquittoBroker,
) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        aggregator.subscribe(topics.ALL_UPDATES)
        old = connect(shared_mosquitto, "dev-1", protocol=MQTTProtocolVersion.MQTTv311)
        assert old.publish(topics.updates("dev-2"), b"forged") == 0
        assert old.publish(topics.updates("dev-1"), b"own") == 0
        assert aggregator.next_message() == (topics.updates("dev-1"), b"own")


@pytest.mark.parametrize("topic", [topics.receipts("dev-2"), topics.receipts("+"), "#"])
def test_a_device_does_not_see_the_receipts_of_another(
    shared_mosquitto: MosquittoBroker, topic: str
) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        curious = connect(shared_mosquitto, "dev-1")
        curious.subscribe(topic)
        curious.subscribe(topics.receipts("dev-1"))
        aggregator.publish(topics.receipts("dev-2"), b"for the other")
        aggregator.publish(topics.receipts("dev-1"), b"mine")
        seen = [curious.next_message()]
        while seen[-1][0] != topics.receipts("dev-1"):
            seen.append(curious.next_message())
        assert topics.receipts("dev-2") not in dict(seen)


def test_a_client_id_gives_no_rights_and_takes_no_session_over(
    shared_mosquitto: MosquittoBroker,
) -> None:
    with clients() as connect:
        victim = connect(shared_mosquitto, "dev-2")
        victim.subscribe(topics.receipts("dev-2"))
        forger = connect(shared_mosquitto, "dev-1", client_id="dev-2")
        assert forger.publish(topics.updates("dev-2")) == NOT_AUTHORIZED
        connect(shared_mosquitto, "aggregator").publish(topics.receipts("dev-2"), b"still here")
        assert victim.next_message() == (topics.receipts("dev-2"), b"still here")
        assert victim.disconnected.empty()


@pytest.mark.parametrize(("user", "password"), [("dev-1", "wrong"), ("nobody", "x"), (None, None)])
def test_strangers_are_refused(
    shared_mosquitto: MosquittoBroker, user: str | None, password: str | None
) -> None:
    client = Client(shared_mosquitto, user, password)
    try:
        reason = client.connected.get(timeout=DEADLINE_S)
        assert reason.is_failure
        assert reason.value in (NOT_AUTHORIZED, BAD_PASSWORD)
    finally:
        client.close()


def test_an_oversize_packet_ends_the_connection_and_reaches_nobody(
    shared_mosquitto: MosquittoBroker,
) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        aggregator.subscribe(topics.ALL_UPDATES)
        # An MQTT 5 client of paho is told the limit and would not send it.
        device = connect(shared_mosquitto, "dev-1", protocol=MQTTProtocolVersion.MQTTv311)
        assert device.publish(topics.updates("dev-1"), bytes(900_000)) == 0
        assert len(aggregator.next_message()[1]) == 900_000
        device.mqtt.publish(topics.updates("dev-1"), bytes(1_000_001), qos=1)
        assert device.disconnected.get(timeout=DEADLINE_S).is_failure
        device.close()
        assert connect(shared_mosquitto, "dev-2").publish(topics.updates("dev-2"), b"next") == 0
        assert aggregator.next_message() == (topics.updates("dev-2"), b"next")


def test_more_updates_wait_for_one_acknowledgement_than_the_default_of_20(
    shared_mosquitto: MosquittoBroker,
) -> None:
    with clients() as connect:
        aggregator = connect(shared_mosquitto, "aggregator")
        aggregator.mqtt.manual_ack_set(True)
        aggregator.subscribe(topics.ALL_UPDATES)
        device = connect(shared_mosquitto, "dev-1")
        for number in range(200):
            device.mqtt.publish(topics.updates("dev-1"), str(number).encode(), qos=1)
        bodies = [aggregator.next_message()[1] for _ in range(200)]
        assert bodies == [str(number).encode() for number in range(200)]


@needs_mosquitto
def test_a_clean_restart_keeps_queues_and_a_kill_keeps_only_what_was_saved(tmp_path: Path) -> None:
    with clients() as connect, MosquittoBroker(tmp_path, USERS) as broker:
        url = broker.url
        away = connect(broker, "aggregator", keep_session=True)
        away.subscribe(topics.ALL_UPDATES)
        away.publish(topics.announcement(TASK), b"saved", retain=True)
        away.close()
        device = connect(broker, "dev-1")
        for number in range(1_500):
            device.mqtt.publish(topics.updates("dev-1"), str(number).encode(), qos=1)
        for _ in range(1_500):
            assert not device.published.get(timeout=DEADLINE_S).is_failure
        device.close()

        broker.restart()
        assert broker.url == url
        back = connect(broker, "aggregator", keep_session=True)
        bodies = [back.next_message()[1] for _ in range(1_500)]
        assert bodies == [str(number).encode() for number in range(1_500)]

        # Not saved yet: autosave_interval is longer than this test.
        assert back.publish(topics.announcement(TASK), b"never saved", retain=True) == 0
        back.close()
        broker.kill()
        assert broker.pid is None
        broker.restart()
        reader = connect(broker, "dev-1")
        reader.subscribe(topics.ALL_ANNOUNCEMENTS)
        assert reader.next_message() == (topics.announcement(TASK), b"saved")


@needs_mosquitto
def test_a_port_outlives_kills_while_clients_knock(tmp_path: Path) -> None:
    with clients() as connect, MosquittoBroker(tmp_path, USERS) as broker:
        host, port, _ = parse_broker_url(broker.url)
        done = threading.Event()

        def knock() -> None:
            while not done.is_set():
                with socket.socket() as probe:
                    probe.connect_ex((host, port))

        knocker = threading.Thread(target=knock)
        knocker.start()
        try:
            for _ in range(5):
                broker.kill()
                broker.restart()
        finally:
            done.set()
            knocker.join()
        assert connect(broker, "dev-1").publish(topics.updates("dev-1")) == 0


@needs_mosquitto
def test_passwords_are_not_stored_in_the_clear(tmp_path: Path) -> None:
    with MosquittoBroker(tmp_path, USERS):
        file = tmp_path / "passwords"
        assert file.stat().st_mode & 0o077 == 0
        stored = file.read_text()
        assert all(f"{user}:$" in stored for user in USERS)
        assert not any(f":{password}\n" in stored for password in USERS.values())


@needs_mosquitto
@pytest.mark.parametrize("users", [{"dev:1": "x"}, {"dev-1": ""}, {"": "x"}, {"dev-1": "a\nb:c"}])
def test_users_that_a_password_file_cannot_hold_are_refused(
    tmp_path: Path, users: dict[str, str]
) -> None:
    with pytest.raises(BrokerError, match="name and password"):
        MosquittoBroker(tmp_path, users)


@needs_mosquitto
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    # The certificates that this listener needs are not there.
    with pytest.raises(BrokerError, match=r"(?s)did not start.*certificate"):
        MosquittoBroker(tmp_path, USERS, listener="tls")


@needs_mosquitto
def test_stop_is_final_and_may_be_repeated(tmp_path: Path) -> None:
    broker = MosquittoBroker(tmp_path, USERS)
    pid = broker.pid
    assert pid is not None
    broker.stop()
    broker.stop()
    assert gone(pid)
    assert "terminating" in broker.log.read_text()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, a server's certificate for 127.0.0.1, and one device's."""
    folder = tmp_path_factory.mktemp("authority")
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    (folder / "dev-1.ext").write_text("extendedKeyUsage=clientAuth\n")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(folder, f"req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca")
    for name in ("server", "dev-1"):
        openssl(folder, f"req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 "
            f"-extfile {name}.ext -out {name}.crt",
        )
    return folder


def openssl(folder: Path, arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@contextmanager
def tls_broker(folder: Path, authority: Path, listener: str) -> Iterator[MosquittoBroker]:
    (folder / "certificates").mkdir()
    for name in ("ca.crt", "server.crt", "server.key"):
        (folder / "certificates" / name).write_bytes((authority / name).read_bytes())
    with MosquittoBroker(folder, USERS, listener=listener) as broker:
        yield broker


@needs_mosquitto
def test_tls_with_a_password(tmp_path: Path, authority: Path) -> None:
    with clients() as connect, tls_broker(tmp_path, authority, "tls") as broker:
        assert broker.url.startswith("mqtts://")
        trusting = ssl.create_default_context(cafile=authority / "ca.crt")
        device = connect(broker, "dev-1", tls=trusting)
        assert device.publish(topics.updates("dev-1")) == 0
        assert device.publish(topics.updates("dev-2")) == NOT_AUTHORIZED
        host, port, _ = parse_broker_url(broker.url)
        strict = ssl.create_default_context()
        with (
            socket.create_connection((host, port)) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            strict.wrap_socket(raw, server_hostname=host)


@needs_mosquitto
def test_tls_with_a_client_certificate_names_the_device_by_its_cn(
    tmp_path: Path, authority: Path
) -> None:
    with clients() as connect, tls_broker(tmp_path, authority, "mutual-tls") as broker:
        context = ssl.create_default_context(cafile=authority / "ca.crt")
        context.load_cert_chain(authority / "dev-1.crt", authority / "dev-1.key")
        device = connect(broker, None, tls=context)
        assert device.publish(topics.updates("dev-1")) == 0
        assert device.publish(topics.updates("dev-2")) == NOT_AUTHORIZED


@needs_mosquitto
def test_mosquitto_holds_well_over_a_thousand_devices(tmp_path: Path) -> None:
    users = {f"dev-{number}": f"secret-{number}" for number in range(1_500)}
    own_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with MosquittoBroker(tmp_path, users) as broker, ExitStack() as stack:
        limit, _ = resource.prlimit(broker.pid or 0, resource.RLIMIT_NOFILE)
        if min(limit, own_limit) < len(users) + 100:
            pytest.skip(f"only {min(limit, own_limit)} descriptors are allowed here")
        host, port, _ = parse_broker_url(broker.url)
        held = []
        for user, password in users.items():
            one = stack.enter_context(socket.create_connection((host, port), timeout=DEADLINE_S))
            one.sendall(connect_packet(user, password))
            assert one.recv(4) == bytes([0x20, 2, 0, 0]), user
            held.append(one)
        for one in held:
            one.sendall(PING)
        assert {one.recv(2) for one in held} == {PONG}


PING, PONG = bytes([0xC0, 0]), bytes([0xD0, 0])


def connect_packet(user: str, password: str) -> bytes:
    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    body = text("MQTT") + bytes([4, 0xC2, 0, 60]) + text("x") + text(user) + text(password)
    return bytes([0x10, len(body)]) + body


PARENT = """
    import sys, time
    from pathlib import Path
    from device_sims.brokers import start_broker

    broker = start_broker(sys.argv[1], Path(sys.argv[2]), {"dev-1": "first"})
    print(broker.url, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", [pytest.param("mosquitto", marks=needs_mosquitto), "embedded"])
def test_a_broker_dies_with_its_parent_even_by_kill(tmp_path: Path, kind: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), kind, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        assert ExternalBroker(url).url == url
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.communicate()
    host, port, _ = parse_broker_url(url)
    until(lambda: not is_listening(host, port, timeout_s=1.0))


def test_the_embedded_broker_passes_an_acknowledged_message_and_stops(tmp_path: Path) -> None:
    with clients() as connect, EmbeddedBroker(tmp_path) as broker:
        three = MQTTProtocolVersion.MQTTv311
        aggregator = connect(broker, "aggregator", protocol=three)
        aggregator.subscribe(topics.ALL_UPDATES)
        device = connect(broker, "dev-1", protocol=three)
        device.publish(topics.updates("dev-1"), bytes(100_000))
        assert aggregator.next_message() == (topics.updates("dev-1"), bytes(100_000))
    host, port, _ = parse_broker_url(broker.url)
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, port)):
        pass
    assert broker.kind == "embedded"
    broker.stop()


def test_a_fleet_with_retained_statuses_connects_to_the_embedded_broker(tmp_path: Path) -> None:
    three = MQTTProtocolVersion.MQTTv311
    names = [f"dev-{number}" for number in range(160)]
    with clients() as connect, EmbeddedBroker(tmp_path) as broker, ThreadPoolExecutor(16) as pool:

        def join(name: str) -> Client:
            device = connect(broker, name, protocol=three)
            device.subscribe(topics.receipts(name))
            device.publish(topics.status(name), name.encode(), retain=True)
            return device

        # Once more each: those that come back meet the subscriptions of those that come and go.
        for _ in pool.map(Client.close, pool.map(join, names)):
            pass
        fleet = dict(zip(names, pool.map(join, names), strict=True))

        aggregator = connect(broker, "aggregator", protocol=three)
        aggregator.subscribe(topics.ALL_STATUSES)
        statuses = dict(aggregator.next_message() for _ in names)
        assert statuses == {topics.status(name): name.encode() for name in names}
        for name, device in fleet.items():
            # What was retained would have come before this.
            aggregator.publish(topics.receipts(name), b"receipt")
            assert device.next_message() == (topics.receipts(name), b"receipt")
        for _ in pool.map(Client.close, fleet.values()):
            pass
    assert not any(word in broker.log.read_text() for word in ("ERROR", "WARNING", "Traceback"))


def test_the_embedded_broker_keeps_a_session_that_comes_back_among_others(tmp_path: Path) -> None:
    three = MQTTProtocolVersion.MQTTv311
    with clients() as connect, EmbeddedBroker(tmp_path) as broker:
        keeping = {"protocol": three, "keep_session": True}
        away = connect(broker, "aggregator", **keeping)
        away.subscribe(topics.ALL_STATUSES)
        away.close()
        device = connect(broker, "dev-1", protocol=three)
        device.publish(topics.status("dev-1"), b"online", retain=True)
        back = connect(broker, "aggregator", **keeping)
        assert back.next_message() == (topics.status("dev-1"), b"online")


def test_the_embedded_broker_tells_a_client_of_mqtt_5_that_it_is_none(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        client = Client(broker, "dev-1")
        try:
            assert client.connected.get(timeout=DEADLINE_S).value == UNSUPPORTED_VERSION
        finally:
            client.close()
    assert "WARNING" not in broker.log.read_text()


@needs_mosquitto
def test_auto_takes_mosquitto_where_it_is(tmp_path: Path) -> None:
    with start_broker("auto", tmp_path, USERS) as broker:
        assert broker.kind == "mosquitto"
        assert "Mosquitto 2." in broker.describe()
        assert broker.url in broker.describe()


def test_auto_takes_the_embedded_broker_elsewhere_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice_module, "find_mosquitto", lambda: None)
    with start_broker("auto", tmp_path, USERS) as broker:
        assert broker.kind == "embedded"
        assert "mosquitto is not installed" in broker.describe()


def test_a_broker_by_address_is_used_and_left_alone(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as ours:
        with start_broker(ours.url, tmp_path, USERS) as theirs:
            assert (theirs.kind, theirs.url) == ("external", ours.url)
        with clients() as connect:
            connect(ours, "dev-1", protocol=MQTTProtocolVersion.MQTTv311)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("mqtt://127.0.0.1:9", "no broker answers"),
        ("rabbitmq", "expected mqtt://host:port"),
        ("http://127.0.0.1:1883", "expected mqtt://host:port"),
    ],
)
def test_a_wrong_choice_is_a_clear_error(tmp_path: Path, choice: str, message: str) -> None:
    with pytest.raises(BrokerError, match=message):
        start_broker(choice, tmp_path, USERS)


def test_mosquitto_is_found_outside_of_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto and mosquitto_passwd are not installed")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert find_mosquitto() is not None


def test_the_shipped_configuration_never_names_an_absolute_path() -> None:
    folder = configuration_directory()
    files = [folder / "mosquitto.conf", folder / "acl", *(folder / "listeners").glob("*.conf")]
    assert len(files) == 5
    for file in files:
        lines = file.read_text().splitlines()
        settings = [line for line in lines if not line.startswith("#")]
        assert not any(word[0] == "/" for line in settings for word in line.split()), file
