"""Settings: what is read from where, and how each mistake is named."""

from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, TlsFiles, load_config
from edge_agent.errors import ConfigError

MINIMAL = """
device = "hub-1"
state_dir = "state"
aggregator = "http://localhost:8080/"
broker = "mqtt://localhost"
"""


def load(root: Path, text: str, environment: dict[str, str] | None = None) -> AgentConfig:
    path = root / "agent.toml"
    path.write_text(text)
    return load_config(path, environment or {})


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.device == "hub-1"
    assert config.aggregator == "http://localhost:8080"
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("localhost", 1883, None)
    assert config.task is None
    assert (config.runtime, config.holdout, config.durability) == ("onnx", True, "full")
    assert config.local is None


def test_everything(tmp_path: Path) -> None:
    secret, pem = tmp_path / "secret", tmp_path / "some.pem"
    secret.write_text("s3cret\n")
    pem.write_text("")
    task = "0123456789abcdef" * 2
    config = load(
        tmp_path,
        f"""
        device = "hub-1"
        state_dir = "state"
        aggregator = "https://example.org/api"
        broker = "mqtts://[::1]:9999"
        username = "hub-1"
        password_file = "{secret}"
        task = "{task}"
        holdout = false
        durability = "normal"
        [tls]
        ca = "{pem}"
        cert = "{pem}"
        key = "{pem}"
        [outbox]
        max_updates = 3
        max_bytes = 4000
        [local]
        broker = "mqtt://127.0.0.1:1884"
        topic = "home/+/played"
        """,
    )
    assert config.broker.url == "mqtts://[::1]:9999"
    assert config.broker.tls == TlsFiles(ca=pem, cert=pem, key=pem)
    assert config.broker.password == "s3cret"
    assert config.task == task
    assert not config.holdout
    assert (config.outbox.max_updates, config.outbox.max_bytes) == (3, 4000)
    assert config.local is not None
    assert config.local.broker.port == 1884
    assert config.local.topic == "home/+/played"


def test_environment_overrides_the_file_and_suffices_alone(tmp_path: Path) -> None:
    environment = {
        "RIVULET_AGENT_DEVICE": "hub-2",
        "RIVULET_AGENT_HOLDOUT": "false",
        "RIVULET_AGENT_OUTBOX_MAX_UPDATES": "7",
        "RIVULET_AGENT_CONFIG": "ignored",
        "PATH": "ignored",
    }
    config = load(tmp_path, MINIMAL, environment)
    assert (config.device, config.holdout, config.outbox.max_updates) == ("hub-2", False, 7)
    alone = {
        "RIVULET_AGENT_DEVICE": "hub-3",
        "RIVULET_AGENT_STATE_DIR": "state",
        "RIVULET_AGENT_AGGREGATOR": "http://localhost",
        "RIVULET_AGENT_BROKER": "mqtts://localhost",
    }
    assert load_config(None, alone).broker.port == 8883


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("speed = 1", "unknown key 'speed'; the keys are device"),
        ("[tls]\nca_file = 'x'", "unknown key 'tls.ca_file'"),
        ("holdout = 'maybe'", "holdout is 'maybe'; expected true or false"),
        ("holdout = 1", "holdout is 1; expected true or false"),
        ("durability = 'none'", "durability is 'none'; expected one of full, normal"),
        ("task = 'XY'", "task is 'XY'; expected the 32 hex characters"),
        ("[outbox]\nmax_updates = 0", "outbox.max_updates is 0; expected a whole number"),
        ("[outbox]\nmax_bytes = true", "outbox.max_bytes is True; expected a whole number"),
        ("[tls]\nca = '/nowhere.pem'", "tls.ca is '/nowhere.pem'; expected the path of a file"),
        ("password = 'abc'", "password is set but username is not"),
        ("password_file = '/nowhere'", "password_file is '/nowhere'; expected the path"),
        ("[local]\ntopic = 'x'", "local.broker is missing; set it in the file or as RIVULET_AGENT"),
        ("[local]\nbroker = 'mqtt://x'", "local.topic is missing"),
        (
            "[local]\nbroker = 'mqtt://x'\ntopic = 'home/#/x'",
            "local.topic is 'home/#/x'; expected an MQTT topic filter",
        ),
        (
            "[local]\nbroker = 'mqtt://x'\ntopic = 'home/a+'",
            "local.topic is 'home/a+'; expected an MQTT topic filter",
        ),
        (f"[tls]\nca = '{__file__}'", "tls.ca is set, but nothing uses TLS"),
        ("runtime = 3", "runtime is 3; expected a text"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL + extra)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("device", "Hub 1", "1 to 64 lower-case letters, digits and hyphens"),
        ("broker", "localhost:1883", "mqtt://host:port or mqtts://host:port"),
        ("broker", "mqtt://localhost:99999", "mqtt://host:port or mqtts://host:port"),
        ("broker", "mqtt://me:pw@localhost", "without user"),
        ("broker", "mqtt://localhost/path", "without a path"),
        ("aggregator", "ftp://localhost", "http://host:port or https://host:port"),
        ("aggregator", "http://", "http://host:port or https://host:port"),
        ("state_dir", "", "a text"),
    ],
)
def test_each_bad_value_is_named(tmp_path: Path, key: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL, {f"RIVULET_AGENT_{key.upper()}": value})
    text = str(caught.value)
    assert text.startswith(f"{key} is {value!r}; expected ")
    assert expected in text


def test_missing_file_bad_toml_and_unknown_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        load_config(tmp_path / "none.toml", {})
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path, "device = ")
    with pytest.raises(ConfigError, match="unknown variable RIVULET_AGENT_DEVCIE"):
        load(tmp_path, MINIMAL, {"RIVULET_AGENT_DEVCIE": "x"})


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL + "username = 'me'\npassword = 'hunter2'")
    assert "hunter2" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL + "username = 'me'\npassword = ['hunter2']")
    assert "hunter2" not in str(caught.value)
    (tmp_path / "pw").write_text("x")
    with pytest.raises(ConfigError, match="are both set"):
        load(tmp_path, MINIMAL + f"password = 'a'\npassword_file = '{tmp_path / 'pw'}'")


def test_the_state_folder_may_be_in_the_home(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, {"RIVULET_AGENT_STATE_DIR": "~/rivulet"})
    assert config.state_dir == Path.home() / "rivulet"
