"""``verify``, ``refold``, ``rollback`` and ``promote`` as an operator types them."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from aggregator.command import main
from aggregator.operating import seconds_of
from aggregator.settings import PREFIX
from tests.aggregator.device import Device, eventually
from tests.aggregator.mosquitto import Mosquitto, free_port
from tests.aggregator.process import AggregatorProcess
from tests.aggregator.training import OFTEN, train
from tests.aggregator.workshop import make_bundle, make_update, open_workshop
from wire.bundle import Bundle
from wire.messages import Outcome


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with open_workshop(folder / "data", retention=OFTEN) as workshop:
        train(workshop, make_bundle(folder / "bundle"))
    return folder / "data"


@pytest.fixture
def data(tmp_path: Path, trained: Path) -> Path:
    """A data folder that some training has left behind."""
    return shutil.copytree(trained, tmp_path / "data")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_verify_says_that_all_is_as_recorded(
    data: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(data / "blobs")
    assert main(["verify", "--data", str(data)]) == 0
    assert capsys.readouterr().out == (
        f"task {bundle.task}: 10 versions and 3 snapshots were compared, up to version 9; they are "
        "as recorded\n"
    )
    wanted = ["--task", bundle.task, "--version", "4", "--from-start"]
    assert main(["verify", "--data", str(data), *wanted]) == 0
    assert "5 versions and 1 snapshots" in capsys.readouterr().out
    assert files(data / "blobs") == before


def test_verify_names_what_differs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = create_engine(f"sqlite:///{data / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE updates SET base_version = 1 WHERE id = 5"))
    engine.dispose()
    assert main(["verify", "--data", str(data)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("version 2 comes out as" in line and "(ids 4, 5, 6)" in line for line in lines)
    assert "differences" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["verify"], 2, "data is missing"),
        (["verify", "--task", "x"], 2, "task is 'x'; there are TASK"),
        (["verify", "--version", "99"], 1, "there is no version 99; the newest is 9"),
        (["refold", "--task", "x", "--without-device", "a"], 2, "task is 'x'"),
        (["refold", "--task", "TASK"], 2, "nothing is left out"),
        (["refold", "--task", "TASK", "--since", "9", "--until", "8"], 2, "range is empty"),
        (["refold", "--task", "TASK", "--without-device", "z"], 1, "no update that version 9"),
        (["rollback", "--task", "x", "--to", "1", "--url", "ftp://x"], 2, "url is 'ftp://x'"),
        (["promote", "--task", "x", "--lineage", "1", "--url", "NOBODY"], 1, "no aggregator at"),
        (["promote", "--task", "x", "--lineage", "1", "--token-file", "/no"], 2, "token-file"),
    ],
)
def test_what_is_told_wrong_is_one_line(
    data: Path,
    bundle: Bundle,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    names = {"TASK": bundle.task, "NOBODY": f"http://127.0.0.1:{free_port()}"}
    arguments = [names.get(argument, argument) for argument in arguments]
    if arguments[0] in ("verify", "refold") and sentence != "data is missing":
        arguments += ["--data", str(data)]
    assert main(arguments) == code
    written = capfd.readouterr().err.splitlines()
    lines = [line for line in written if line.startswith("rivulet-aggregator: error: ")]
    assert sentence.replace("TASK", bundle.task) in lines[-1]
    assert "Traceback" not in "".join(written)


def test_a_database_is_neither_made_nor_changed(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--data", str(tmp_path / "nowhere")]) == 1
    assert "there is no database at" in capfd.readouterr().err
    assert not (tmp_path / "nowhere").exists()
    engine = create_engine(f"sqlite:///{data / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
    assert main(["verify", "--data", str(data)]) == 1
    assert "of other software than this" in capfd.readouterr().err
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0005"
    engine.dispose()


def test_a_refold_says_what_is_different(
    data: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["refold", "--data", str(data), "--task", bundle.task, "--without-device", "a"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "lineage 1: version 9 with updates of a left out" in out
    assert "14 updates of 9 versions, the first of them version 1" in out
    assert re.search(r"item: distance [\d.e-]+, cosine -?\d\.\d+", out)
    assert f"promote --url URL --task {bundle.task} --lineage 1" in out


@pytest.mark.parametrize("when", ["folding", "keeping"])
def test_an_interrupted_refold_leaves_nothing(
    data: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = files(data / "blobs")
    name = "fold.Fold.replay" if when == "folding" else "ledger.Past.add_lineage"
    monkeypatch.setattr(f"aggregator.{name}", interrupt)
    command = ["refold", "--data", str(data), "--task", bundle.task, "--without-device", "a"]
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert files(data / "blobs") == before
    with open_workshop(data) as workshop:
        assert workshop.ledger.lineages(bundle.task) == []


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12.5", 12.5),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00+01:00", 0.0),
        ("1970-01-01T00:00:30", 30.0),
    ],
)
def test_a_time_is_a_number_or_a_date(written: str, seconds: float) -> None:
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("command", ["verify", "refold", "rollback", "promote"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--task" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_all_of_it_beside_a_running_service(
    tmp_path: Path,
    bundle: Bundle,
    mosquitto: Mosquitto,
    kind: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, environment = tmp_path / "data", {PREFIX + "RULE_BUFFER_SIZE": "2"}
    environment[PREFIX + "API_TOKEN"] = "sesame"
    beside = ["--data", str(data)]
    if kind == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        environment[PREFIX + "DATABASE"] = url
        beside += ["--database", url]
    with (
        AggregatorProcess(
            data, mosquitto.port, bundle, "--announce-interval", "0", environment=environment
        ) as aggregator,
        Device(mosquitto.port) as device,
    ):
        aggregator.wait_until_ready()
        task = ["--task", bundle.task]

        def send(*numbers: int) -> None:
            for number in numbers:
                device.send(make_update(bundle, number).encode())
                assert device.answer(number).outcome is Outcome.ACCEPTED

        def announced(version: int) -> None:
            eventually(lambda: device.announcements[-1].version == version)

        def ask(*words: str) -> str:
            assert main([*words]) == 0
            return capsys.readouterr().out

        send(1, 2, 3, 4)
        announced(2)
        assert "3 versions" in ask("verify", *beside)
        there = ["--url", aggregator.url, *task]
        assert main(["rollback", *there, "--to", "1"]) == 1
        assert "api_token" in capsys.readouterr().err
        monkeypatch.setenv(PREFIX + "API_TOKEN", "sesame")
        assert "version 3 has the parameters of version 1" in ask("rollback", *there, "--to", "1")
        announced(3)
        without = ["--without-device", device.name]
        assert "lineage 1" in ask("refold", *beside, *task, *without)
        send(5, 6, 7)
        announced(4)
        assert "version 5 is lineage 1" in ask("promote", *there, "--lineage", "1")
        announced(5)
        send(8, 9)
        announced(6)
        out = ask("verify", *beside, "--from-start")
        assert "7 versions" in out
        assert "as recorded" in out
        versions = aggregator.get(f"/v1/tasks/{bundle.task}/versions").json()
        kinds = [v["origin"] and v["origin"]["kind"] for v in versions]
        assert kinds == [None, None, None, "rollback", None, "promote", None]
        aggregator.kill()
        aggregator.start()
        aggregator.wait_until_ready()
        assert ask("verify", *beside) == out
