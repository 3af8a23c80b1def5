"""A device that follows the published versions over real HTTP: patches, snapshots, single rows."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from aggregator.publication import grid_exponent
from aggregator.retention import Retention
from edge_agent.base import Base, BaseLoader
from edge_agent.downloads import Downloads
from edge_agent.errors import PermanentDownloadError
from edge_agent.interactions import Interaction
from edge_agent.runtimes import ProgramFile, Runtime
from edge_agent.runtimes.protocol import Array, Program
from edge_agent.store import Store
from tests.aggregator.api.conftest import Service
from tests.aggregator.workshop import Workshop, make_bundle, make_update, open_workshop
from wire.bundle import Bundle
from wire.delta import FloatArray, RowBlock, Tensor
from wire.manifest import Manifest, Role
from wire.messages import Announcement
from wire.parameters import map_parameters
from wire.patch import encode_row_numbers

ITEMS, WIDTH = 400, 8


class NoProgram(Program):
    capacity = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise AssertionError(inputs)


class NoRuntime(Runtime):
    """Opens no program: here nothing is trained."""

    name = "onnx"

    def open_update(self, manifest: Manifest, files: Mapping[str, ProgramFile]) -> Program:
        del manifest, files
        return NoProgram()

    open_scorer = open_update


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", items=ITEMS, width=WIDTH)


class Follower:
    """A device's loader, its folder, and what it downloaded."""

    def __init__(self, root: Path, url: str) -> None:
        root.mkdir()
        self.store = Store(root / "agent.db", durability="normal")
        self.downloads = Downloads(root, url)
        self.loader = BaseLoader(store=self.store, source=self.downloads, runtime=NoRuntime())

    def follow(self, announcement: Announcement) -> tuple[Base, int]:
        base = self.loader.load(announcement)
        return base, self.loader.take_received_bytes()


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def follower(client: httpx.Client, tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(tmp_path / "device", str(client.base_url).rstrip("/"))
    yield follower
    follower.store.close()


def train(workshop: Workshop, bundle: Bundle, versions: int) -> Announcement:
    """Small steps in some rows; returns the newest announcement."""
    task = workshop.engine.tasks[bundle.task]
    for _ in range(versions):
        for device in "abc":
            sequence = 1 + sum(len(workshop.outbox.receipts(name)) for name in "abc")
            rng = np.random.default_rng(sequence)
            rows = np.sort(rng.choice(ITEMS, 30, replace=False)).astype(np.int64)
            delta: dict[str, Tensor] = {
                "item": RowBlock(rows, rng.normal(0, 0.2, (30, WIDTH)).astype(np.float32)),
                "head": rng.normal(0, 0.1, WIDTH).astype(np.float32),
            }
            workshop.send(device, make_update(bundle, sequence, base=task.version, delta=delta))
    return workshop.outbox.announcements(bundle.task)[-1]


def shared(workshop: Workshop, announcement: Announcement) -> dict[str, bytes]:
    mapped = map_parameters(workshop.blobs.path(announcement.sha256))
    return {name: array.tobytes() for name, array in mapped.items()}


def held(base: Base) -> dict[str, bytes]:
    return {name: np.asarray(base.parameters[name][...]).tobytes() for name in ("item", "head")}


def test_a_device_ends_with_the_same_bits_whatever_it_missed(
    workshop: Workshop, bundle: Bundle, follower: Follower
) -> None:
    first = train(workshop, bundle, 1)
    base, whole_bytes = follower.follow(first)
    assert held(base) == shared(workshop, first)
    # The first version comes from nothing, and even so in less than float32 takes.
    bundle_bytes = len(bundle.raw_manifest) + sum(f.size_bytes for f in bundle.manifest.files)
    assert whole_bytes < bundle_bytes + first.size_bytes
    for missed in (1, 2, 5, 1):
        announcement = train(workshop, bundle, missed)
        base, received = follower.follow(announcement)
        assert held(base) == shared(workshop, announcement)
        assert base.announcement == announcement
        assert received < announcement.size_bytes / 4
    assert follower.follow(announcement)[1] == 0


def test_the_errors_of_rounding_do_not_add_up(
    workshop: Workshop, bundle: Bundle, follower: Follower
) -> None:
    follower.follow(train(workshop, bundle, 1))
    task = workshop.engine.tasks[bundle.task]
    for _ in range(12):
        base, _ = follower.follow(train(workshop, bundle, 1))
        assert task.published is not None
        for name, exact in task.state.parameters.items():
            off = np.abs(np.asarray(base.parameters[name][...]) - exact).max()
            assert off <= 2.0 ** (task.published.exponents[name] - 1)


def test_a_device_that_was_away_too_long_gets_the_version_whole(
    workshop: Workshop, bundle: Bundle, follower: Follower
) -> None:
    workshop.engine._retention = Retention(keep_publications=2)
    follower.follow(train(workshop, bundle, 1))
    announcement = train(workshop, bundle, 4)
    base, _ = follower.follow(announcement)
    assert held(base) == shared(workshop, announcement)


@pytest.mark.parametrize("damage", ["file", "gone"])
def test_a_damaged_old_version_is_noticed_and_the_new_one_fetched_whole(
    workshop: Workshop, bundle: Bundle, follower: Follower, tmp_path: Path, damage: str
) -> None:
    first = train(workshop, bundle, 1)
    follower.follow(first)
    old = tmp_path / "device" / "snapshots" / first.sha256
    if damage == "gone":
        old.unlink()
    else:
        raw = bytearray(old.read_bytes())
        raw[-3] ^= 1
        old.write_bytes(raw)
    announcement = train(workshop, bundle, 2)
    base, _ = follower.follow(announcement)
    assert held(base) == shared(workshop, announcement)


def test_a_wrong_patch_costs_its_bytes_and_nothing_else(
    workshop: Workshop,
    bundle: Bundle,
    follower: Follower,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    follower.follow(train(workshop, bundle, 1))
    announcement = train(workshop, bundle, 2)
    offers = follower.downloads.patches(bundle.task, 3, 1)
    monkeypatch.setattr(follower.downloads, "patch", lambda _: b"\x10\x00")
    base, received = follower.follow(announcement)
    assert held(base) == shared(workshop, announcement)
    patch_bytes = offers.patches[0].size_bytes
    assert received == offers.size_bytes + patch_bytes + announcement.size_bytes
    assert "a patch did not lead to version 3" in caplog.text


def test_a_file_that_does_not_fit_the_manifest_is_not_what_patches_are_added_to(
    workshop: Workshop, bundle: Bundle, follower: Follower
) -> None:
    first = train(workshop, bundle, 1)
    sha256 = workshop.blobs.put(raw := save({"item": np.zeros((3, WIDTH), np.float32)}))
    with pytest.raises(PermanentDownloadError, match="lacks item in the manifest's shape"):
        follower.follow(replace(first, sha256=sha256, size_bytes=len(raw)))
    base, _ = follower.follow(train(workshop, bundle, 2))
    assert held(base) == shared(workshop, base.announcement)


def test_patches_are_blobs_of_their_own_that_never_change(
    client: httpx.Client, workshop: Workshop, bundle: Bundle
) -> None:
    train(workshop, bundle, 3)
    at = f"/v1/tasks/{bundle.task}/versions/3/patches"
    offered = client.get(at, params={"base": 1}).json()
    assert [patch["base"] for patch in offered] == [1, None]
    assert offered == client.get(at, params={"base": 1}).json()
    for patch in offered:
        blob = client.get(f"/v1/blobs/{patch['sha256']}")
        assert len(blob.content) == patch["size_bytes"]
        assert blob.headers["cache-control"] == "public, max-age=31536000, immutable"
        part = client.get(f"/v1/blobs/{patch['sha256']}", headers={"Range": "bytes=10-"})
        assert part.status_code == 206
        assert part.content == blob.content[10:]
    assert client.get(at).json() == [patch for patch in offered if patch["base"] is None]
    assert client.get(at, params={"base": 3}).json() == client.get(at).json()
    assert client.get(at, params={"base": 77}).json() == client.get(at).json()
    missing = client.get(f"/v1/tasks/{bundle.task}/versions/9/patches")
    assert missing.status_code == 404
    assert "version 9 is not published" in missing.json()["detail"]


def test_patches_survive_a_restart_of_the_service_as_the_same_bytes(
    tmp_path: Path, bundle: Bundle
) -> None:
    offered = []
    for life in range(2):
        with open_workshop(tmp_path / "data") as workshop:
            workshop.engine.start()
            if not life:
                workshop.engine.register(bundle)
                train(workshop, bundle, 3)
            offered.append(workshop.patches.to(bundle.task, bundle.manifest, 3, 1))
    assert offered[0] == offered[1]


def rows_of(base: Base, name: str, rows: list[int]) -> FloatArray:
    return np.asarray(base.parameters[name][np.array(rows)])


class TestRows:
    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Bundle:
        return make_bundle(tmp_path / "bundle", items=ITEMS, width=WIDTH, row_requests=True)

    def test_only_the_rows_that_are_looked_at_come(
        self, workshop: Workshop, bundle: Bundle, follower: Follower
    ) -> None:
        announcement = train(workshop, bundle, 2)
        follower.store.add_interactions([Interaction(item=3, at=1.0)])
        base, before = follower.follow(announcement)
        whole = map_parameters(workshop.blobs.path(announcement.sha256))
        assert base.parameters["item"].shape == (ITEMS, WIDTH)
        rows = [7, 3, 3, 399, 0]
        assert np.array_equal(rows_of(base, "item", rows), whole["item"][rows])
        received = follower.loader.take_received_bytes()
        assert 0 < received < 5 * WIDTH * 4
        assert np.array_equal(rows_of(base, "item", [399, 7]), whole["item"][[399, 7]])
        assert follower.loader.take_received_bytes() == 0
        assert np.array_equal(base.parameters["head"][...], whole["head"])
        assert np.array_equal(base.parameters["item"][...], whole["item"])
        assert before < announcement.size_bytes + sum(f.size_bytes for f in bundle.manifest.files)

    def test_a_device_that_needs_most_rows_takes_the_patch(
        self, workshop: Workshop, bundle: Bundle, follower: Follower
    ) -> None:
        many = [Interaction(item=item, at=float(item)) for item in range(300)]
        follower.store.add_interactions(many)
        announcement = train(workshop, bundle, 2)
        base, _ = follower.follow(announcement)
        # Not a table that asks for its rows.
        assert isinstance(base.parameters["item"], np.ndarray)

    @pytest.mark.parametrize("wanted", [b"", b"\xff" * 9, b"\x00" * 3])
    def test_a_request_that_is_none_is_refused(
        self, client: httpx.Client, workshop: Workshop, bundle: Bundle, wanted: bytes
    ) -> None:
        train(workshop, bundle, 1)
        at = f"/v1/tasks/{bundle.task}/versions/1/rows"
        assert client.post(at, content=wanted).status_code == 422

    def test_no_cache_keeps_the_rows_of_a_device(
        self, client: httpx.Client, workshop: Workshop, bundle: Bundle
    ) -> None:
        train(workshop, bundle, 1)
        wanted = encode_row_numbers(np.array([3]), ITEMS)
        answer = client.post(f"/v1/tasks/{bundle.task}/versions/1/rows", content=wanted)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"


def test_rows_are_not_given_where_the_manifest_does_not_allow_it(
    workshop: Workshop, bundle: Bundle, follower: Follower
) -> None:
    train(workshop, bundle, 1)
    with pytest.raises(PermanentDownloadError, match="403"):
        follower.downloads.rows(bundle.task, 1, b"\x00", 1000)


def test_the_grid_stays_until_it_is_wrong() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000).astype(np.float32)
    chosen = grid_exponent(values, Role.ROWS, None)
    assert 2.0**-3 <= 2.0**chosen <= 2.0**-2
    assert grid_exponent(values, Role.DENSE, None) == chosen - 4
    for factor in (0.7, 1.0, 1.4):
        assert grid_exponent(values * np.float32(factor), Role.ROWS, chosen) == chosen
    assert grid_exponent(values * np.float32(4), Role.ROWS, chosen) == chosen + 2
    assert grid_exponent(values / np.float32(4), Role.ROWS, chosen) == chosen - 2
    zeros = np.zeros(3, np.float32)
    assert grid_exponent(zeros, Role.ROWS, None) == 0
    assert grid_exponent(zeros, Role.ROWS, -7) == -7
    assert grid_exponent(np.full(2, 1e-44, np.float32), Role.ROWS, None) == -100
