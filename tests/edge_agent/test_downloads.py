"""Downloads from a real HTTP server that breaks off, lies, and comes back."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest

from edge_agent.downloads import Downloads, Patch
from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from tests.edge_agent.blob_server import BlobServer, serve_blobs
from tests.edge_agent.tiny_task import TinyTask

BLOB = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with serve_blobs() as state:
        state.add(SHA256, BLOB)
        yield state


@pytest.fixture
def downloads(tmp_path: Path, server: BlobServer) -> Downloads:
    return Downloads(tmp_path, server.url)


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


def test_a_blob_is_downloaded_once(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    for _ in range(2):
        assert downloads.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB
    assert len(server.requests) == 1
    assert files(tmp_path) == {SHA256}
    again = Downloads(tmp_path, server.url)
    assert again.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB
    assert again.held(SHA256) is not None
    assert len(server.requests) == 1


def test_a_broken_download_is_resumed_where_it_stopped(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    server.cut_after = 120_000
    with pytest.raises(TransientDownloadError, match="ended after 120000 of 300000 bytes"):
        downloads.snapshot(SHA256, len(BLOB))
    assert files(tmp_path) == {f"{SHA256}.part"}
    # Also by another process.
    downloads = Downloads(tmp_path, server.url)
    with pytest.raises(TransientDownloadError):
        downloads.snapshot(SHA256, len(BLOB))
    server.cut_after = None
    assert downloads.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB
    assert [wanted for _, wanted in server.requests] == [None, "bytes=120000-", "bytes=240000-"]
    assert server.sent_bytes == len(BLOB)


def test_a_server_without_ranges_starts_over(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    server.cut_after, server.ranges = 1_000, False
    with pytest.raises(TransientDownloadError):
        downloads.snapshot(SHA256, len(BLOB))
    server.cut_after = None
    assert downloads.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB


def test_a_wrong_digest_is_thrown_away(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    server.lie = lambda body: b"x" + body[1:]
    with pytest.raises(TransientDownloadError, match="arrived damaged"):
        downloads.snapshot(SHA256, len(BLOB))
    assert files(tmp_path) == set()
    server.lie = bytes
    assert downloads.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB


@pytest.mark.parametrize("announced", [len(BLOB) - 1, len(BLOB) + 1, 0])
def test_another_size_than_announced_is_refused_before_it_is_written(
    tmp_path: Path, server: BlobServer, downloads: Downloads, announced: int
) -> None:
    with pytest.raises((PermanentDownloadError, TransientDownloadError)):
        downloads.snapshot(SHA256, announced)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_a_partial_file_that_is_too_long_or_damaged_does_no_harm(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    partial = tmp_path / "snapshots" / f"{SHA256}.part"
    partial.write_bytes(bytes(len(BLOB) + 5))
    assert downloads.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB
    other = Downloads(tmp_path / "other", server.url)
    (tmp_path / "other" / "snapshots" / f"{SHA256}.part").write_bytes(bytes(500))
    with pytest.raises(TransientDownloadError, match="arrived damaged"):
        other.snapshot(SHA256, len(BLOB))
    assert other.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (HTTPStatus.NOT_FOUND, PermanentDownloadError),
        (HTTPStatus.GONE, PermanentDownloadError),
        (HTTPStatus.INTERNAL_SERVER_ERROR, TransientDownloadError),
        (HTTPStatus.SERVICE_UNAVAILABLE, TransientDownloadError),
        (HTTPStatus.TOO_MANY_REQUESTS, TransientDownloadError),
    ],
)
def test_statuses_are_transient_or_permanent(
    server: BlobServer, downloads: Downloads, status: HTTPStatus, error: type[Exception]
) -> None:
    server.status = status
    with pytest.raises(error, match=str(int(status))):
        downloads.snapshot(SHA256, len(BLOB))
    with pytest.raises(error, match=str(int(status))):
        downloads.manifest("0" * 32)


def test_nobody_there_is_transient(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(TransientDownloadError, match="cannot reach"):
        downloads.snapshot(SHA256, len(BLOB))


def test_a_manifest_is_checked_against_its_name(
    server: BlobServer, downloads: Downloads, task: TinyTask
) -> None:
    server.add_task(task)
    assert downloads.manifest(task.task) == task.raw
    server.lie = lambda body: body + b" "
    with pytest.raises(PermanentDownloadError, match="is not the manifest of"):
        downloads.manifest(task.task)
    server.lie = lambda _body: bytes(2 << 20)
    with pytest.raises(PermanentDownloadError, match="is not the manifest of"):
        downloads.manifest(task.task)


def test_old_snapshots_give_way_and_files_stay(tmp_path: Path, server: BlobServer) -> None:
    downloads = Downloads(tmp_path, server.url, keep_snapshots=2)
    names = []
    for number in range(4):
        blob = bytes([number]) * 100
        names.append(hashlib.sha256(blob).hexdigest())
        server.add(names[-1], blob)
        mapped = np.memmap(downloads.snapshot(names[-1], 100), np.uint8, "r")
        downloads.snapshot(names[0], 100) if number == 2 else None
    downloads.file(SHA256, len(BLOB))
    assert files(tmp_path) == {names[0], names[3], SHA256}
    assert mapped[0] == 3
    # The order of use survives a restart.
    downloads = Downloads(tmp_path, server.url, keep_snapshots=1)
    downloads.snapshot(names[1], 100)
    assert files(tmp_path / "snapshots") == {names[1]}


def test_what_was_begun_for_an_old_version_is_swept_away(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    server.cut_after = 10
    with pytest.raises(TransientDownloadError):
        downloads.snapshot(SHA256, len(BLOB))
    server.cut_after = None
    new = hashlib.sha256(b"new").hexdigest()
    server.add(new, b"new")
    downloads.snapshot(new, 3)
    assert files(tmp_path) == {new}


def test_threads_share_one_download(server: BlobServer, downloads: Downloads) -> None:
    threads = [
        threading.Thread(target=downloads.snapshot, args=(SHA256, len(BLOB))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


def test_a_full_disk_is_transient(
    server: BlobServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TransientDownloadError, match="No space left on device"):
        downloads.snapshot(SHA256, len(BLOB))


@pytest.mark.parametrize("damaged", [BLOB[:1000], b"x" + BLOB[1:]])
def test_a_file_damaged_on_the_disk_is_fetched_again(
    tmp_path: Path, server: BlobServer, downloads: Downloads, damaged: bytes
) -> None:
    downloads.file(SHA256, len(BLOB)).write_bytes(damaged)
    downloads.snapshot(SHA256, len(BLOB)).write_bytes(damaged)
    again = Downloads(tmp_path, server.url)
    assert again.held(SHA256) is None
    assert again.file(SHA256, len(BLOB)).read_bytes() == BLOB
    assert again.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB


def test_a_snapshot_that_cannot_be_removed_is_no_failure(
    server: BlobServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(hashlib.sha256(b"new").hexdigest(), b"new")
    downloads.snapshot(SHA256, len(BLOB))

    def refuse(_path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, f"read only, {missing_ok}")

    monkeypatch.setattr(Path, "unlink", refuse)
    path = downloads.snapshot(hashlib.sha256(b"new").hexdigest(), 3)
    assert path.read_bytes() == b"new"


def test_a_patch_that_is_called_as_the_version_it_makes_does_not_hold_up_the_agent(
    tmp_path: Path, downloads: Downloads
) -> None:
    patch = Patch(None, SHA256, len(BLOB))
    made = threading.Thread(
        target=downloads.snapshot,
        args=(SHA256, len(BLOB), lambda path: path.write_bytes(downloads.patch(patch))),
        daemon=True,
    )
    made.start()
    made.join(10.0)
    assert not made.is_alive()
    assert files(tmp_path) == {SHA256}


def test_what_was_half_made_is_not_resumed_as_a_download(
    tmp_path: Path, server: BlobServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda _path, missing_ok=False: missing_ok)
        with pytest.raises(KeyboardInterrupt):
            downloads.snapshot(SHA256, len(BLOB), half)
    assert len(files(tmp_path)) == 1
    again = Downloads(tmp_path, server.url)
    assert again.snapshot(SHA256, len(BLOB)).read_bytes() == BLOB
    assert files(tmp_path) == {SHA256}


def test_a_broken_off_patch_is_resumed_and_does_not_stay(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    server.cut_after = 120_000
    with pytest.raises(TransientDownloadError):
        downloads.patch(Patch(3, SHA256, len(BLOB)))
    server.cut_after = None
    again = Downloads(tmp_path, server.url)
    assert again.patch(Patch(3, SHA256, len(BLOB))) == BLOB
    assert [wanted for _, wanted in server.requests] == [None, "bytes=120000-"]
    assert files(tmp_path) == set()


def test_threads_that_share_a_folder_of_patches_do_not_lose_one(
    tmp_path: Path, server: BlobServer, downloads: Downloads
) -> None:
    patches = []
    for number in range(4):
        blob = bytes([number]) * 5_000
        patches.append(Patch(None, hashlib.sha256(blob).hexdigest(), len(blob)))
        server.add(patches[-1].sha256, blob)
    found: list[bool] = []

    def follow(first: int) -> None:
        for turn in range(40):
            number = (first + turn) % len(patches)
            found.append(downloads.patch(patches[number]) == bytes([number]) * 5_000)

    threads = [threading.Thread(target=follow, args=(first % 4,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 240
    assert files(tmp_path) == set()


def test_an_answer_that_breaks_off_is_transient(
    server: BlobServer, downloads: Downloads, task: TinyTask
) -> None:
    server.add_task(task)
    at = f"/v1/tasks/{task.task}/versions/7"
    server.resources[f"{at}/patches?base=3"] = b'[{"base": 3, "sha256": "", "size_bytes": 1}]'
    server.resources[f"{at}/rows"] = bytes(100)
    asks: list[Callable[[], object]] = [
        lambda: downloads.manifest(task.task),
        lambda: downloads.patches(task.task, 7, 3),
        lambda: downloads.rows(task.task, 7, b"wanted", 1000),
    ]
    for cut_after in (0, 20):
        server.cut_after = cut_after
        for ask in asks:
            with pytest.raises(TransientDownloadError, match="broke off"):
                ask()
    server.cut_after = None
    assert downloads.rows(task.task, 7, b"wanted", 100) == bytes(100)
    with pytest.raises(PermanentDownloadError, match="more than the 99 bytes"):
        downloads.rows(task.task, 7, b"wanted", 99)
    with pytest.raises(PermanentDownloadError, match="does not list patches"):
        downloads.patches(task.task, 7, 3)
