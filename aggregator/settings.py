"""What the aggregator is told from outside: a TOML file, the environment, and flags.

Each overrides the one before. A key is the same everywhere: ``rule.buffer_size`` is ``buffer_size``
in the file's table ``[rule]`` and the variable ``RIVULET_AGGREGATOR_RULE_BUFFER_SIZE``.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from aggregator import parsers
from aggregator.admission import AdmissionPolicy
from aggregator.broker import Broker, BrokerError
from aggregator.merging import Rule, RuleError
from aggregator.retention import Retention

__all__ = [
    "KEYS",
    "PREFIX",
    "Role",
    "Settings",
    "SettingsError",
    "Storage",
    "load_settings",
    "load_storage",
    "read_admission",
]

PREFIX = "RIVULET_AGGREGATOR_"
DATABASE_FILE = "ledger.db"


class Role(StrEnum):
    """What a process does."""

    ALL = "all"
    INGEST = "ingest"
    MERGE = "merge"
    API = "api"


class SettingsError(Exception):
    """A setting is refused; the message names the key, its value and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that one aggregator is told.

    Attributes:
        data: folder for the ledger and the blobs; created when missing.
        database: URL of the ledger.
        blobs: folder or URL of the blobs; None is the folder ``blobs`` in ``data``.
        blobs_cache_bytes: most that local copies of blobs elsewhere may take.
        blobs_redirect: send clients to where the blobs are kept, by signed URLs.
        broker: the MQTT broker; the role api does without. Its client id is empty until the data
            folder gives it one.
        role: what the process does.
        share: name of the group in which processes of the role ingest share the updates.
        host: address to listen on for HTTP.
        port: port to listen on; 0 takes a free one.
        bundles: bundles to serve as tasks.
        api_token: what a client must send as ``Authorization: Bearer`` to change anything.
        insecure: listen beyond loopback without a token.
        announce_interval_s: least time between two announcements of a task's progress.
        rule: merge rule of new tasks.
        admission: bounds on updates.
        retention: which snapshots are kept.
        devices_file: file with the ids of the devices that may take part; None for all.
    """

    data: Path
    database: str = field(repr=False)
    broker: Broker | None
    role: Role = Role.ALL
    share: str = "rivulet"
    host: str = "127.0.0.1"
    port: int = 8080
    bundles: tuple[Path, ...] = ()
    blobs: str | None = None
    blobs_cache_bytes: int = 1 << 30
    blobs_redirect: bool = False
    api_token: str | None = field(default=None, repr=False)
    insecure: bool = False
    announce_interval_s: float = 0.5
    rule: Rule = field(default_factory=Rule)
    admission: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    retention: Retention = field(default_factory=Retention)
    devices_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where a service keeps what it keeps, for what is done beside it.

    Attributes:
        database: URL of the ledger.
        blobs: folder or URL of the blobs.
    """

    database: str = field(repr=False)
    blobs: str


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "data": parsers.path,
    "database": parsers.text,
    "blobs": parsers.text,
    "blobs_cache_bytes": parsers.natural,
    "blobs_redirect": parsers.boolean,
    "role": parsers.text,
    "broker": parsers.text,
    "username": parsers.text,
    "password": parsers.text,
    "password_file": parsers.file,
    "client_id": parsers.text,
    "share": parsers.text,
    "tls.ca": parsers.file,
    "tls.cert": parsers.file,
    "tls.key": parsers.file,
    "host": parsers.text,
    "port": parsers.port,
    "bundles": parsers.paths,
    "api_token": parsers.text,
    "insecure": parsers.boolean,
    "devices_file": parsers.file,
    "announce_interval_s": parsers.seconds,
    "rule.kind": parsers.text,
    "rule.buffer_size": parsers.integer,
    "rule.max_wait_s": parsers.number,
    "rule.weighting": parsers.text,
    "rule.staleness": parsers.text,
    "rule.staleness_exponent": parsers.number,
    "rule.staleness_slope": parsers.number,
    "rule.staleness_delay": parsers.integer,
    "rule.staleness_scope": parsers.text,
    "rule.delay_threshold": parsers.integer,
    "rule.participation_exponent": parsers.number,
    "rule.participation_limit": parsers.number,
    "rule.row_clip": parsers.number,
    "rule.trim": parsers.number,
    "rule.krum_byzantine": parsers.integer,
    "rule.row_correction": parsers.text,
    "rule.heat_limit": parsers.number,
    "rule.optimizer": parsers.text,
    "rule.server_learning_rate": parsers.number,
    "rule.momentum": parsers.number,
    "rule.beta_1": parsers.number,
    "rule.beta_2": parsers.number,
    "rule.adaptivity": parsers.number,
    "admission.max_staleness": parsers.integer,
    "admission.max_norm": parsers.number,
    "admission.norm_factor": parsers.number,
    "admission.norm_quantile": parsers.number,
    "admission.norm_warmup": parsers.integer,
    "admission.rate_tolerance": parsers.number,
    "admission.rate_burst": parsers.integer,
    "retention.snapshot_every": parsers.integer,
    "retention.keep_snapshots": parsers.integer,
    "retention.keep_every": parsers.integer,
    "retention.keep_publications": parsers.integer,
    "retention.keep_payload_days": parsers.number,
    "retention.warn_days": parsers.number,
}
SECRETS = ("password", "api_token")


def load_settings(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Settings:
    """Put the settings together.

    Args:
        file: a TOML file, or None.
        environment: of the process; variables that begin with ``RIVULET_AGGREGATOR_`` count.
        flags: by key, from the command line; None means not given.

    Raises:
        SettingsError: the file cannot be read, a key is unknown or missing, or a value is refused.
    """
    values = _values(file, environment, flags)
    role = _role(values)
    settings = Settings(
        role=role,
        data=values["data"],
        database=_database(values),
        broker=None if role is Role.API and "broker" not in values else _broker(values),
        rule=_group(values, "rule", Rule),
        admission=_group(values, "admission", AdmissionPolicy),
        retention=_group(values, "retention", Retention),
        **{key: values[key] for key in _PLAIN if key in values},
    )
    _check_exposure(settings)
    _check_role(settings)
    return settings


def load_storage(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Storage:
    """Of the same settings what says where things are kept; the rest need not be there.

    Raises:
        SettingsError: see ``load_settings``.
    """
    values = _values(file, environment, flags)
    return Storage(
        database=_database(values), blobs=values.get("blobs", str(values["data"] / "blobs"))
    )


def read_admission(values: Mapping[str, Any]) -> AdmissionPolicy:
    """The bounds on updates, as the file's table ``[admission]`` has them.

    Raises:
        SettingsError: a key is unknown, or a value is refused.
    """
    named = {f"admission.{key}": value for key, value in values.items()}
    known = {key: parser for key, parser in KEYS.items() if key.startswith("admission.")}
    for key in named:
        if key not in known:
            raise SettingsError(f"unknown key {key!r}{_nearest(key, known)}")
    parsed = {key: _parse(key, value) for key, value in named.items()}
    policy: AdmissionPolicy = _group(parsed, "admission", AdmissionPolicy)
    return policy


def _values(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> dict[str, Any]:
    raw = dict(_from_file(file))
    raw.update(_from_environment(environment))
    raw.update({key: value for key, value in flags.items() if value is not None})
    values = {key: _parse(key, value) for key, value in raw.items()}
    if "data" not in values:
        raise SettingsError(f"data is missing; give --data DIR, or set {PREFIX}DATA")
    return values


def _database(values: Mapping[str, Any]) -> str:
    inside = f"sqlite:///{values['data'].resolve() / DATABASE_FILE}"
    return str(values.get("database", inside))


_PLAIN = (
    "blobs",
    "blobs_cache_bytes",
    "blobs_redirect",
    "share",
    "host",
    "port",
    "bundles",
    "api_token",
    "insecure",
    "devices_file",
    "announce_interval_s",
)


def _from_file(file: Path | None) -> Iterator[tuple[str, Any]]:
    if file is None:
        return
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    for key, value in _flatten(document):
        if key not in KEYS:
            raise SettingsError(f"{file} has an unknown key {key!r}{_nearest(key, KEYS)}")
        yield key, value


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    variables = {PREFIX + key.upper().replace(".", "_"): key for key in KEYS}
    for name, value in environment.items():
        if name.startswith(PREFIX):
            if name not in variables:
                raise SettingsError(f"unknown variable {name}{_nearest(name, variables)}")
            yield variables[name], value


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _parse(key: str, value: Any) -> Any:
    try:
        return KEYS[key](value)
    except ValueError as error:
        shown = "(hidden)" if key in SECRETS else f"{value!r:.120}"
        raise SettingsError(f"{key} is {shown}; expected {error}") from None


def _group(values: Mapping[str, Any], name: str, kind: Callable[..., Any]) -> Any:
    given = {
        key.removeprefix(f"{name}."): value
        for key, value in values.items()
        if key.startswith(f"{name}.")
    }
    try:
        return kind(**given)
    except (ValueError, RuleError) as error:
        raise SettingsError(str(error)) from None


def _role(values: Mapping[str, Any]) -> Role:
    try:
        return Role(values.get("role", Role.ALL))
    except ValueError:
        expected = ", ".join(role.value for role in Role)
        raise SettingsError(f"role is {values['role']!r}; expected one of {expected}") from None


def _broker(values: Mapping[str, Any]) -> Broker:
    if "broker" not in values:
        raise SettingsError(f"broker is missing; give --broker URL, or set {PREFIX}BROKER")
    password = _password(values)
    if password is not None and "username" not in values:
        raise SettingsError("password is set but username is not; set both")
    if "tls.key" in values and "tls.cert" not in values:
        raise SettingsError("tls.key is set but tls.cert is not; set both")
    try:
        return Broker.from_url(
            values["broker"],
            client_id=values.get("client_id", ""),
            username=values.get("username"),
            password=password,
            ca=values.get("tls.ca"),
            cert=values.get("tls.cert"),
            key=values.get("tls.key"),
        )
    except BrokerError as error:
        raise SettingsError(str(error)) from None


def _password(values: Mapping[str, Any]) -> str | None:
    if "password_file" not in values:
        return values.get("password")
    if "password" in values:
        raise SettingsError("password and password_file are both set; set one of them")
    try:
        text: str = values["password_file"].read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read password_file: {error}") from None
    return text.strip("\r\n")


def _check_exposure(settings: Settings) -> None:
    if settings.api_token or settings.insecure or _is_loopback(settings.host):
        return
    raise SettingsError(
        f"host is {settings.host!r}: others could change tasks; set api_token (or "
        f"{PREFIX}API_TOKEN), listen on 127.0.0.1, or pass --insecure"
    )


def _check_role(settings: Settings) -> None:
    if not settings.share or set("/+#") & set(settings.share):
        raise SettingsError(f"share is {settings.share!r}; expected a name without /, + and #")
    if settings.role is Role.ALL:
        return
    role = settings.role.value
    if not settings.database.startswith("postgres"):
        raise SettingsError(
            f"role is {role}, which needs a ledger that others reach too; set database to "
            "postgresql://USER@HOST/NAME"
        )
    if settings.blobs is None and settings.role is not Role.INGEST:
        raise SettingsError(
            f"role is {role}, which needs blobs that others reach too; set blobs to a folder that "
            "all of them share, or to s3://BUCKET/PREFIX"
        )
    if settings.bundles and settings.role is not Role.MERGE:
        raise SettingsError(f"bundles are set, but role is {role}; give them to the role merge")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
