"""Settings: file, environment and flags; what is refused and how it says so."""

from pathlib import Path
from typing import Any

import pytest

from aggregator.merging import Kind, Optimizer, RowCorrection, Rule
from aggregator.settings import KEYS, PREFIX, Role, SettingsError, load_settings

BASE = {"data": "data", "broker": "mqtt://broker"}


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "aggregator.toml"
    file.write_text(text)
    return file


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings(None, {}, {"data": str(tmp_path), "broker": "mqtt://broker"})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.database == f"sqlite:///{tmp_path / 'ledger.db'}"
    assert settings.bundles == ()
    assert settings.rule.buffer_size == 20


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'data = "d"\nbroker = "mqtt://b"\nport = 1\nhost = "localhost"\n')
    environment = {PREFIX + "PORT": "2", PREFIX + "HOST": "127.0.0.2", "PATH": "/bin"}
    settings = load_settings(file, environment, {"port": "3", "host": None})
    assert (settings.port, settings.host) == (3, "127.0.0.2")


def test_tables_become_rule_admission_and_retention(tmp_path: Path) -> None:
    text = (
        'data = "d"\nbroker = "mqtts://b"\nbundles = ["x", "y"]\n'
        '[rule]\nbuffer_size = 7\nrow_correction = "touched"\n'
        "[admission]\nmax_staleness = 3\n[retention]\nkeep_every = 0\n"
    )
    environment = {PREFIX + "RULE_MAX_WAIT_S": "2.5", PREFIX + "ADMISSION_MAX_NORM": "9"}
    settings = load_settings(write(tmp_path, text), environment, {})
    assert (settings.rule.buffer_size, settings.rule.max_wait_s) == (7, 2.5)
    assert settings.rule.row_correction is RowCorrection.TOUCHED
    assert (settings.admission.max_staleness, settings.admission.max_norm) == (3, 9.0)
    assert settings.retention.keep_every == 0
    assert settings.bundles == (Path("x"), Path("y"))
    assert settings.broker is not None
    assert settings.broker.tls


def test_every_key_of_a_rule_is_a_setting() -> None:
    keys = {key.removeprefix("rule.") for key in KEYS if key.startswith("rule.")}
    assert keys == set(Rule.__dataclass_fields__)


def test_a_rule_is_named_in_the_file_and_tuned_by_variables(tmp_path: Path) -> None:
    file = write(tmp_path, '[rule]\nkind = "fadas"\noptimizer = "yogi"\nbeta_2 = 0.9\n')
    environment = {PREFIX + "RULE_DELAY_THRESHOLD": "6", PREFIX + "RULE_BETA_1": "0.8"}
    rule = load_settings(file, environment, BASE).rule
    assert (rule.kind, rule.optimizer) == (Kind.FADAS, Optimizer.YOGI)
    assert (rule.delay_threshold, rule.beta_1, rule.beta_2) == (6, 0.8, 0.9)


def test_credentials_and_tls_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    (tmp_path / "ca.pem").write_text("x")
    flags = {
        **BASE,
        "username": "aggregator",
        "password_file": str(tmp_path / "secret"),
        "tls.ca": str(tmp_path / "ca.pem"),
    }
    broker = load_settings(None, {}, flags).broker
    assert broker is not None
    assert (broker.username, broker.password) == ("aggregator", "open sesame")
    assert broker.ca == tmp_path / "ca.pem"
    assert "sesame" not in repr(broker)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("brokr = 1", "unknown key 'brokr'; did you mean broker?"),
        ("[rule]\nbufer_size = 1", r"unknown key 'rule\.bufer_size'; did you mean"),
        ("zzz = 1", "unknown key 'zzz'; there are data, database"),
        ("port = 70000", "port is 70000; expected a port from 0 to 65535"),
        ("port = true", "port is True; expected"),
        ("[rule]\nbuffer_size = 0", r"rule\.buffer_size is 0; expected"),
        ('[rule]\nweighting = "median"', r"rule\.weighting is 'median'; expected one of"),
        ('[rule]\nkind = "fedsgd"', r"rule\.kind is 'fedsgd'; expected one of fedavg, fedasync"),
        ("[rule]\nmomentum = 0.5", r"rule\.momentum is 0\.5; expected no such key"),
        ("[admission]\nmax_norm = -1", r"admission\.max_norm is -1"),
        ("[admission]\nrate_burst = 0", r"admission\.rate_burst is 0; expected 1 or more"),
        ("[rule]\nkrum_byzantine = 9", r"rule\.buffer_size is 20; expected 21 to 500"),
        ('devices_file = "/nowhere"', "expected the path of a file that exists"),
        ("[retention]\nkeep_snapshots = 0", r"retention\.keep_snapshots is 0"),
        ("announce_interval_s = -1", "announce_interval_s is -1; expected seconds"),
        ("bundles = 3", "bundles is 3; expected a list of paths"),
        ('insecure = "maybe"', "insecure is 'maybe'; expected true or false"),
        ("api_token = 5", r"api_token is \(hidden\); expected a text"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_key_and_value(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings(write(tmp_path, text), {}, BASE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": None}, "data is missing; give --data"),
        ({"broker": None}, "broker is missing; give --broker"),
        ({"broker": "http://b"}, "expected mqtt://host"),
        ({"broker": "mqtt://user:pass@b"}, "set username and password instead"),
        ({"password": "x"}, "password is set but username is not"),
        ({"password_file": "/nowhere"}, "expected the path of a file that exists"),
        ({"tls.key": __file__}, r"tls\.key is set but tls\.cert is not"),
        ({"host": "0.0.0.0"}, "set api_token"),
        ({"host": "::"}, "set api_token"),
        ({"host": "example.org"}, "set api_token"),
    ],
)
def test_bad_flags_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load_settings(None, {}, {**BASE, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"host": "0.0.0.0", "api_token": "t"},
        {"host": "0.0.0.0", "insecure": True},
        {"host": "::1"},
        {"host": "localhost"},
        {"host": "127.8.0.1"},
    ],
)
def test_exposure_needs_a_token_or_a_decision(change: dict[str, Any]) -> None:
    assert load_settings(None, {}, {**BASE, **change}).host == change["host"]


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"unknown variable {PREFIX}BROKR; did you mean"):
        load_settings(None, {PREFIX + "BROKR": "x"}, BASE)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cannot read nowhere\.toml"):
        load_settings(Path("nowhere.toml"), {}, {})


def test_other_places_for_ledger_and_blobs(tmp_path: Path) -> None:
    file = write(tmp_path, 'blobs = "s3://bucket/prefix"\nblobs_redirect = true\n')
    environment = {
        PREFIX + "DATABASE": "postgresql://rivulet:sesame@db/rivulet",
        PREFIX + "BLOBS_CACHE_BYTES": "1000",
    }
    settings = load_settings(file, environment, BASE)
    assert (settings.blobs, settings.blobs_redirect) == ("s3://bucket/prefix", True)
    assert settings.blobs_cache_bytes == 1000
    assert settings.database == "postgresql://rivulet:sesame@db/rivulet"
    assert "sesame" not in repr(settings)
    with pytest.raises(SettingsError, match="blobs_cache_bytes is '-1'; expected a whole number"):
        load_settings(file, {PREFIX + "BLOBS_CACHE_BYTES": "-1"}, BASE)


POSTGRESQL = {**BASE, "database": "postgresql://rivulet@localhost/rivulet"}


def test_a_role_needs_what_others_reach_too() -> None:
    settings = load_settings(None, {}, {**POSTGRESQL, "role": "ingest", "share": "mine"})
    assert (settings.role, settings.share) == (Role.INGEST, "mine")
    api = {k: v for k, v in POSTGRESQL.items() if k != "broker"}
    assert load_settings(None, {}, {**api, "role": "api", "blobs": "b"}).broker is None


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({**BASE, "role": "cook"}, "expected one of all, ingest, merge, api"),
        ({**BASE, "role": "ingest"}, "database"),
        ({**POSTGRESQL, "role": "merge"}, "blobs"),
        ({**POSTGRESQL, "role": "api", "blobs": "b", "bundles": ["x"]}, "bundles"),
        ({**POSTGRESQL, "role": "ingest", "share": "a/b"}, "share"),
    ],
)
def test_a_role_without_what_it_needs_is_refused(flags: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(None, {}, flags)
