"""What one agent is told from outside: a TOML file, overridden by environment variables."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent import settings
from edge_agent.errors import ConfigError
from edge_agent.settings import Settings
from wire.errors import WireError
from wire.topics import check_device_id

__all__ = [
    "CONFIG_VARIABLE",
    "AgentConfig",
    "BrokerConfig",
    "LocalTopicConfig",
    "OutboxLimits",
    "TlsFiles",
    "load_config",
    "parse_broker_url",
]

PREFIX = "RIVULET_AGENT_"
CONFIG_VARIABLE = PREFIX + "CONFIG"
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
KEYS = (
    "device",
    "state_dir",
    "aggregator",
    "broker",
    "username",
    "password",
    "password_file",
    "task",
    "runtime",
    "holdout",
    "durability",
    "tls.ca",
    "tls.cert",
    "tls.key",
    "outbox.max_updates",
    "outbox.max_bytes",
    "local.broker",
    "local.topic",
    "local.username",
    "local.password",
    "local.password_file",
)
TLS_KEYS = ("tls.ca", "tls.cert", "tls.key")
MAX_TOPIC_BYTES = 65_535
SECRETS = ("password", "local.password")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS.

    Attributes:
        ca: certificates to trust instead of the system's.
        cert: the device's own certificate chain, where the other side asks for one.
        key: private key of ``cert``.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """How to reach one MQTT broker.

    Attributes:
        host: name or address.
        port: TCP port, 1 to 65,535.
        tls: files for TLS (all None: the system's certificates); None connects without TLS.
        username: MQTT user name; None connects anonymously.
        password: goes with ``username``.
    """

    host: str
    port: int
    tls: TlsFiles | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address without credentials, fit for a log."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much may wait for receipts before the device stops training.

    Attributes:
        max_updates: number of waiting updates, at least 1.
        max_bytes: their encoded size, at least 1.
    """

    max_updates: int = 64
    max_bytes: int = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTopicConfig:
    """Where interactions come from: a topic on the device's own broker or hub.

    Attributes:
        broker: that broker.
        topic: topic filter whose messages are JSON, see ``interactions.parse_event``.
    """

    broker: BrokerConfig
    topic: str


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Everything that one agent is told from outside.

    Attributes:
        device: the device's id; client id and topics use it. ``[a-z0-9-]``, 1 to 64 characters.
        state_dir: folder for the database and the downloaded model; created when missing.
        aggregator: base URL of the aggregator's HTTP API, without a slash at its end.
        broker: the broker that the aggregator listens on.
        task: the only task to take part in; None adopts the first one that is announced.
        runtime: which runtime trains.
        holdout: keep the item of the latest interaction out of training, for the local evaluation.
        durability: ``full`` syncs each transaction to the disk; ``normal`` leaves that to
            checkpoints: quicker and easier on flash, but a power cut may undo the last ones.
        outbox: limits for what waits to be sent.
        tls: files for TLS to the aggregator (brokers carry their own).
        local: where interactions are published locally, if anywhere.
    """

    device: str
    state_dir: Path
    aggregator: str
    broker: BrokerConfig
    task: str | None = None
    runtime: str = "onnx"
    holdout: bool = True
    durability: str = "full"
    outbox: OutboxLimits = OutboxLimits()
    tls: TlsFiles = TlsFiles()
    local: LocalTopicConfig | None = None


def load_config(path: Path | None, environment: Mapping[str, str] = os.environ) -> AgentConfig:
    """Read the settings of an agent.

    Args:
        path: the TOML file; None takes everything from the environment.
        environment: each ``RIVULET_AGENT_…`` variable overrides the key of its name,
            ``RIVULET_AGENT_OUTBOX_MAX_UPDATES`` for ``outbox.max_updates``.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or missing, or a value is refused.
    """
    values = Settings(
        _document(path),
        environment,
        prefix=PREFIX,
        keys=KEYS,
        secrets=SECRETS,
        ignored=(CONFIG_VARIABLE,),
    )
    tls = TlsFiles(
        ca=values.optional("tls.ca", settings.file),
        cert=values.optional("tls.cert", settings.file),
        key=values.optional("tls.key", settings.file),
    )
    if tls.key is not None and tls.cert is None:
        raise ConfigError("tls.key is set but tls.cert is not; expected both")
    defaults = OutboxLimits()
    config = AgentConfig(
        device=values.required("device", _device),
        state_dir=values.required("state_dir", settings.folder),
        aggregator=values.required("aggregator", _http_url),
        broker=_broker(values, "", tls),
        task=values.optional("task", _task),
        runtime=values.optional("runtime", settings.text) or "onnx",
        holdout=values.optional("holdout", settings.boolean) is not False,
        durability=values.optional("durability", settings.choice("full", "normal")) or "full",
        outbox=OutboxLimits(
            max_updates=values.optional("outbox.max_updates", settings.count)
            or defaults.max_updates,
            max_bytes=values.optional("outbox.max_bytes", settings.count) or defaults.max_bytes,
        ),
        tls=tls,
        local=_local(values, tls),
    )
    _check_tls_is_used(values, config)
    return config


def parse_broker_url(value: Any) -> tuple[str, int, bool]:
    """Host, port and whether to use TLS, from ``mqtt://host:port`` or ``mqtts://host:port``.

    Raises:
        ValueError: what was expected instead.
    """
    expected = "mqtt://host:port or mqtts://host:port"
    parts = settings.url(*DEFAULT_PORTS, expected=expected)(value)
    if parts.path.strip("/"):
        raise ValueError(f"{expected}, without a path")
    host, port = str(parts.hostname), parts.port or DEFAULT_PORTS[parts.scheme]
    return host, port, parts.scheme == "mqtts"


def _check_tls_is_used(values: Settings, config: AgentConfig) -> None:
    """Whoever names certificates believes that what they connect to is protected by them."""
    brokers = [config.broker] + ([config.local.broker] if config.local else [])
    if config.aggregator.startswith("https:") or any(broker.tls for broker in brokers):
        return
    for key in TLS_KEYS:
        if key in values:
            raise ConfigError(
                f"{key} is set, but nothing uses TLS; expected an mqtts:// broker or an https:// "
                "aggregator"
            )


def _document(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _broker(values: Settings, section: str, tls: TlsFiles) -> BrokerConfig:
    host, port, secure = values.required(f"{section}broker", parse_broker_url)
    username = values.optional(f"{section}username", settings.text)
    password = _password(values, section)
    if password is not None and username is None:
        raise ConfigError(f"{section}password is set but {section}username is not; expected both")
    return BrokerConfig(
        host=host,
        port=port,
        tls=tls if secure else None,
        username=username,
        password=password,
    )


def _password(values: Settings, section: str) -> str | None:
    key = f"{section}password"
    path = values.optional(f"{key}_file", settings.file)
    if path is None:
        return values.optional(key, settings.text)
    if key in values:
        raise ConfigError(f"{key} and {key}_file are both set; expected one of them")
    try:
        return path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}_file: cannot read {path}: {error}") from None


def _local(values: Settings, tls: TlsFiles) -> LocalTopicConfig | None:
    if not any(key in values for key in KEYS if key.startswith("local.")):
        return None
    topic = values.required("local.topic", _topic_filter)
    return LocalTopicConfig(broker=_broker(values, "local.", tls), topic=topic)


def _http_url(value: Any) -> str:
    parts = settings.url("http", "https", expected="http://host:port or https://host:port")(value)
    return parts.geturl().rstrip("/")


def _topic_filter(value: Any) -> str:
    """MQTT 5, section 4.7: a wildcard fills its level, and ``#`` is the last one."""
    topic = settings.text(value)
    levels = topic.split("/")
    misplaced = any(
        ("+" in level and level != "+") or ("#" in level and (level != "#" or number < len(levels)))
        for number, level in enumerate(levels, 1)
    )
    if misplaced or "\0" in topic or len(topic.encode()) > MAX_TOPIC_BYTES:
        raise ValueError("an MQTT topic filter, for example home/+/played or home/#")
    return topic


def _device(value: Any) -> str:
    try:
        return check_device_id(settings.text(value))
    except WireError:
        raise ValueError("1 to 64 lower-case letters, digits and hyphens") from None


def _task(value: Any) -> str:
    if not re.fullmatch("[0-9a-f]{32}", settings.text(value)):
        raise ValueError("the 32 hex characters that name a task")
    return str(value)
