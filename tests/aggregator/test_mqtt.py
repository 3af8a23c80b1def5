"""The link to the broker, against a real Mosquitto and the embedded 3.1.1 broker."""

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amqtt.broker import Broker as EmbeddedBroker

from aggregator.broker import Broker, BrokerError
from aggregator.mqtt import Link
from aggregator.reception import Inbound
from tests.aggregator.device import Device, eventually
from tests.aggregator.mosquitto import Mosquitto, free_port
from wire import topics
from wire.messages import Outcome, Receipt


class Ear:
    """What a link delivers, and what it says of itself."""

    def __init__(self, broker: Broker, *, share: str | None = None, listen: bool = True) -> None:
        self.heard: list[Inbound] = []
        self.has_room = True
        self.times_ready = 0
        self.refused: list[str] = []
        self.link = Link(
            broker,
            deliver=self.heard.append,
            has_room=lambda: self.has_room,
            on_ready=self._count,
            on_refused=self.refused.append,
            share=share,
            listen=listen,
        )

    def _count(self) -> None:
        self.times_ready += 1


@contextmanager
def listening(
    port: int,
    *,
    username: str | None = None,
    password: str | None = None,
    tls_ca: Path | None = None,
    client_id: str = "aggregator-of-the-test",
    share: str | None = None,
    listen: bool = True,
) -> Iterator[Ear]:
    broker = Broker(
        host="localhost" if tls_ca else "127.0.0.1",
        port=port,
        client_id=client_id,
        username=username,
        password=password,
        tls=tls_ca is not None,
        ca=tls_ca,
    )
    ear = Ear(broker, share=share, listen=listen)
    ear.link.start()
    try:
        yield ear
    finally:
        ear.link.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


def protected(tmp_path: Path, acl: str) -> Mosquitto:
    """A broker with the users aggregator and device-1, both with the password ``secret``."""
    folder = tmp_path / "protected"
    folder.mkdir()
    passwords = folder / "passwords"
    for name in ("aggregator", "device-1"):
        create = [] if passwords.exists() else ["-c"]
        subprocess.run(
            ["mosquitto_passwd", *create, "-b", str(passwords), name, "secret"], check=True
        )
    (folder / "acl").write_text(acl)
    lines = ["allow_anonymous false", f"password_file {passwords}", f"acl_file {folder / 'acl'}"]
    return Mosquitto(folder, lines)


def test_messages_arrive_once_the_self_test_has(mosquitto: Mosquitto) -> None:
    with listening(mosquitto.port) as ear:
        eventually(lambda: ear.link.ready)
        assert ear.link.problem is None
        assert ear.link.connected
        with Device(mosquitto.port) as device:
            device.send(b"hello")
            eventually(lambda: ear.heard)
        assert [(m.topic, m.payload) for m in ear.heard] == [(topics.updates("device-1"), b"hello")]


def test_what_is_not_acknowledged_comes_again(mosquitto: Mosquitto) -> None:
    with Device(mosquitto.port) as device:
        with listening(mosquitto.port) as ear:
            eventually(lambda: ear.link.ready)
            device.send(b"one")
            device.send(b"two")
            eventually(lambda: len(ear.heard) == 2)
            ear.heard[0].acknowledge()
        device.send(b"three")
        with listening(mosquitto.port) as again:
            eventually(lambda: len(again.heard) == 2)
            assert [message.payload for message in again.heard] == [b"two", b"three"]
            ear.heard[1].acknowledge()
            for message in again.heard:
                message.acknowledge()
        with listening(mosquitto.port) as third:
            eventually(lambda: third.link.ready)
            assert third.heard == []


def test_nothing_is_read_while_there_is_no_room(mosquitto: Mosquitto) -> None:
    with Device(mosquitto.port) as device, listening(mosquitto.port) as ear:
        eventually(lambda: ear.link.ready)
        ear.has_room = False
        exchange(ear, device, 1)
        device.send(b"later")
        exchange(ear, device, 2)
        assert ear.heard == []
        ear.has_room = True
        ear.link.wake()
        eventually(lambda: ear.heard)


def exchange(ear: Ear, device: Device, sequence: int) -> None:
    """Send a device something and wait for it: the link has been around its loop."""
    receipt = Receipt(task="0" * 32, sequence=sequence, outcome=Outcome.ACCEPTED, version=1)
    ear.link.publish(topics.receipts(device.name), receipt.encode())
    assert device.answer(sequence) == receipt


def test_a_broker_that_dies_is_found_again(mosquitto: Mosquitto) -> None:
    with listening(mosquitto.port) as ear:
        eventually(lambda: ear.times_ready == 1)
        mosquitto.kill()
        eventually(lambda: not ear.link.connected)
        assert not ear.link.ready
        assert ear.link.problem
        mosquitto.start()
        eventually(lambda: ear.times_ready == 2)
        with Device(mosquitto.port) as device:
            device.send(b"after")
            eventually(lambda: ear.heard)


def test_a_broker_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path / "late")
    with listening(broker.port) as ear:
        eventually(lambda: "cannot reach the broker" in (ear.link.problem or ""))
        with broker:
            eventually(lambda: ear.link.ready)
    assert ear.refused == []


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_password_is_named(tmp_path: Path, password: str | None) -> None:
    name = None if password is None else "aggregator"
    with (
        protected(tmp_path, "user aggregator\ntopic readwrite #\n") as broker,
        listening(broker.port, username=name, password=password) as ear,
    ):
        refusals: list[str] = eventually(lambda: ear.refused)
        assert "user name or password" in refusals[0]
        assert not ear.link.ready


def test_a_broker_that_refuses_is_asked_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def back_off(failed: int) -> float:
        failures.append(failed)
        return 0.01

    monkeypatch.setattr("aggregator.mqtt._back_off", back_off)
    with (
        protected(tmp_path, "user aggregator\ntopic readwrite #\n") as broker,
        listening(broker.port, username="aggregator", password="wrong"),
    ):
        eventually(lambda: len(failures) >= 4)
    assert failures[:4] == [1, 2, 3, 4]


def test_a_right_password_opens(tmp_path: Path) -> None:
    acl = "pattern write rivulet/v1/devices/%u/updates\nuser aggregator\ntopic read rivulet/v1/#\n"
    with (
        protected(tmp_path, acl) as broker,
        listening(broker.port, username="aggregator", password="secret") as ear,
    ):
        eventually(lambda: ear.link.ready)


def test_a_subscription_that_delivers_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.mqtt.SELF_TEST_TIMEOUT_S", 0.3)
    acl = "user aggregator\ntopic write rivulet/v1/#\n"
    with (
        protected(tmp_path, acl) as broker,
        listening(broker.port, username="aggregator", password="secret") as ear,
    ):
        eventually(lambda: "does not come back" in (ear.link.problem or ""))
        assert not ear.link.ready


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_checks_the_broker(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    openssl = shutil.which("openssl")
    assert openssl is not None
    for name in ("broker", "stranger"):
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-keyout", str(folder / f"{name}.key"), "-out", str(folder / name)),
                *("-days", "1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
            ],
            check=True,
            capture_output=True,
        )
    lines = [
        f"certfile {folder / 'broker'}",
        f"keyfile {folder / 'broker.key'}",
        "allow_anonymous true",
    ]
    with Mosquitto(folder, lines) as broker:
        with listening(broker.port, tls_ca=folder / "broker") as ear:
            eventually(lambda: ear.link.ready)
            for number in range(50):
                ear.link.publish(topics.updates("device-1"), b"x" * 20_000 + bytes([number]))
            eventually(lambda: len(ear.heard) == 50)
        with listening(broker.port, tls_ca=folder / "stranger") as ear:
            eventually(lambda: "certificate" in (ear.link.problem or "").lower())
            assert not ear.link.connected


def test_unusable_tls_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("not a certificate")
    broker = Broker(host="localhost", port=1, client_id="x", tls=True, ca=tmp_path / "ca")
    with pytest.raises(BrokerError, match=r"tls\.ca"):
        broker.tls_context()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_broker_of_3_1_1_is_spoken_to_in_3_1_1() -> None:
    port = free_port()
    with _embedded(port), listening(port) as ear:
        eventually(lambda: ear.link.ready)


@contextmanager
def _embedded(port: int) -> Iterator[None]:
    """amqtt, which speaks MQTT 3.1.1 only, on an event loop in a thread."""
    started, loop = threading.Event(), asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        broker = EmbeddedBroker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
            },
            loop=loop,
        )
        loop.run_until_complete(broker.start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(broker.shutdown())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10.0)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://broker", "broker", 1883, False),
        ("mqtts://broker", "broker", 8883, True),
        ("mqtt://[::1]:1999/", "::1", 1999, False),
    ],
)
def test_broker_urls(url: str, host: str, port: int, tls: bool) -> None:
    broker = Broker.from_url(url, client_id="x")
    assert (broker.host, broker.port, broker.tls) == (host, port, tls)
    assert str(broker).startswith("mqtt")


@pytest.mark.parametrize(
    "url", ["broker:1883", "http://broker", "mqtt://", "mqtt://broker:x", "mqtt://a:b@broker"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(BrokerError, match="broker"):
        Broker.from_url(url, client_id="x")


def test_several_share_the_updates_and_each_sees_that_it_gets_some(mosquitto: Mosquitto) -> None:
    with (
        listening(mosquitto.port, client_id="one", share="x") as one,
        listening(mosquitto.port, client_id="two", share="x") as two,
        listening(mosquitto.port, client_id="three", share="x") as three,
        Device(mosquitto.port) as device,
    ):
        ears = (one, two, three)
        eventually(lambda: all(ear.link.ready for ear in ears))
        for number in range(30):
            device.send(b"%d" % number)
        eventually(lambda: sum(len(ear.heard) for ear in ears) == 30)
        assert all(ear.heard for ear in ears)
        heard = {message.payload for ear in ears for message in ear.heard}
        assert heard == {b"%d" % number for number in range(30)}
        assert [ear.times_ready for ear in ears] == [1, 1, 1]


def test_the_broker_s_own_rules_let_an_aggregator_share(tmp_path: Path) -> None:
    acl = (Path(__file__).parents[2] / "deploy" / "mosquitto" / "acl").read_text()
    with (
        protected(tmp_path, acl) as broker,
        listening(broker.port, username="aggregator", password="secret", share="x") as ear,
        Device(broker.port, password="secret") as device,
    ):
        eventually(lambda: ear.link.ready)
        device.send(b"hello")
        eventually(lambda: ear.heard)


def test_the_share_of_one_who_left_goes_to_those_who_stayed(mosquitto: Mosquitto) -> None:
    with listening(mosquitto.port, client_id="one", share="x") as one:
        with listening(mosquitto.port, client_id="two", share="x") as two:
            eventually(lambda: one.link.ready and two.link.ready)
        with Device(mosquitto.port) as device:
            for number in range(10):
                device.send(b"%d" % number)
            eventually(lambda: len(one.heard) == 10)


def test_who_listens_to_nothing_is_ready_once_it_is_connected(mosquitto: Mosquitto) -> None:
    with (
        listening(mosquitto.port, client_id="one", listen=False) as ear,
        Device(mosquitto.port) as device,
    ):
        eventually(lambda: ear.link.ready)
        device.send(b"hello")
        ear.link.publish(topics.receipts(device.name), receipt(1))
        device.answer(1)
        assert ear.heard == []
        assert ear.times_ready == 1


def receipt(sequence: int) -> bytes:
    return Receipt(
        task="a" * 32, sequence=sequence, outcome=Outcome.ACCEPTED, reason=None, version=0
    ).encode()
