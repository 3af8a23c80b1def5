"""Tasks over HTTP."""

import hashlib
from pathlib import Path

import httpx
import pytest

from aggregator.ledger import LedgerUnavailableError
from tests.aggregator.api.conftest import Service
from tests.aggregator.workshop import Workshop, make_bundle, make_update
from wire import topics
from wire.bundle import Bundle
from wire.messages import Metric, Status, StatusState


def upload(client: httpx.Client, bundle: Bundle) -> None:
    for entry in bundle.manifest.files:
        body = bundle.path(entry).read_bytes()
        assert client.put(f"/v1/blobs/{entry.sha256}", content=body).status_code == 201


def test_tasks_are_listed_and_described(client: httpx.Client, bundle: Bundle) -> None:
    listed = client.get("/v1/tasks").json()
    assert [(t["task"], t["name"], t["version"]) for t in listed] == [(bundle.task, "tiny", 0)]
    one = client.get(f"/v1/tasks/{bundle.task}").json()
    assert one["training"] == bundle.manifest.training.to_dict()
    assert one["codec"] == bundle.manifest.codec.to_dict()
    assert one["rule"]["buffer_size"] == 3
    assert one["paused"] is False


def test_what_can_still_be_made_again_is_said(client: httpx.Client, bundle: Bundle) -> None:
    found = client.get(f"/v1/tasks/{bundle.task}/retention").json()
    assert (found["keep_payload_days"], found["dropped_to"], found["next_loss_at"]) == (0, 0, None)
    assert found["sentence"].startswith("Every version can be made again")


def test_the_manifest_is_served_byte_for_byte(client: httpx.Client, bundle: Bundle) -> None:
    raw = client.get(f"/v1/tasks/{bundle.task}/manifest").content
    assert raw == bundle.raw_manifest
    assert hashlib.sha256(raw).hexdigest().startswith(bundle.task)


def test_a_task_is_made_of_uploaded_files(
    client: httpx.Client, workshop: Workshop, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", name="other")
    early = client.post("/v1/tasks", content=other.raw_manifest)
    assert early.status_code == 409
    assert "missing: programs/update.onnx" in early.json()["detail"]
    upload(client, other)
    for _ in range(2):
        made = client.post("/v1/tasks", content=other.raw_manifest)
        assert made.status_code == 201
        assert made.json() == {"task": other.task}
    assert len(client.get("/v1/tasks").json()) == 2
    assert workshop.outbox.announcements(other.task)[-1].version == 0


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"format": 99}', b"[" * 100_000])
def test_a_bad_manifest_is_refused_with_a_sentence(client: httpx.Client, body: bytes) -> None:
    refused = client.post("/v1/tasks", content=body)
    assert refused.status_code == 422
    assert "manifest" in refused.json()["detail"]


def test_a_body_has_a_largest_size(client: httpx.Client, bundle: Bundle) -> None:
    large = b" " * (2 << 20)
    assert client.post("/v1/tasks", content=large).status_code == 413
    assert client.patch(f"/v1/tasks/{bundle.task}", content=large).status_code == 413


def test_steering_answers_with_what_is_in_force(
    client: httpx.Client, workshop: Workshop, bundle: Bundle
) -> None:
    changes = {"paused": True, "training": {"epochs": 9}, "rule": {"buffer_size": 40}}
    steered = client.patch(f"/v1/tasks/{bundle.task}", json=changes).json()
    assert steered["paused"] is True
    assert steered["training"]["epochs"] == 9
    assert steered["rule"]["buffer_size"] == 40
    assert client.get(f"/v1/tasks/{bundle.task}").json() == steered
    assert workshop.outbox.announcements(bundle.task)[-1].training.epochs == 9


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": {"epochs": 0}}, "training.epochs is 0; expected an integer from 1"),
        ({"rule": {"bufer_size": 1}}, "rule has an unknown key 'bufer_size'"),
        (
            {"rule": {"kind": "fadas", "staleness": "hinge"}},
            "rule.staleness is 'hinge'; expected no",
        ),
        ({"codec": {"bits": "many"}}, "codec.bits is 'many'"),
        ({"pause": True}, "pause"),
        ({"paused": "perhaps"}, "paused"),
        ([], "the body"),
    ],
)
def test_orders_that_are_not_valid_are_refused_with_a_sentence(
    client: httpx.Client, bundle: Bundle, changes: object, sentence: str
) -> None:
    before = client.get(f"/v1/tasks/{bundle.task}").json()
    refused = client.patch(f"/v1/tasks/{bundle.task}", json=changes)
    assert refused.status_code == 422
    assert sentence in refused.json()["detail"]
    assert client.get(f"/v1/tasks/{bundle.task}").json() == before


@pytest.mark.parametrize(
    "path", ["", "/manifest", "/summary", "/updates", "/devices", "/versions", "/versions/0"]
)
def test_an_unknown_task_is_named(client: httpx.Client, path: str) -> None:
    missing = client.get(f"/v1/tasks/{'0' * 32}{path}")
    assert missing.status_code == 404
    assert "GET /v1/tasks lists them" in missing.json()["detail"]


def test_updates_and_devices(client: httpx.Client, workshop: Workshop, bundle: Bundle) -> None:
    status = Status(state=StatusState.ONLINE, agent="0.1.0", runtime="onnx").encode()
    workshop.send("a", make_update(bundle, 1, metrics={Metric.HR_AT_10: 1.0}))
    workshop.send("b", make_update(bundle, 1), make_update(bundle, 2))
    workshop.engine.ingest([workshop.outbox.inbound("a", status, topic=topics.status("a"))])
    at = f"/v1/tasks/{bundle.task}"
    newest = client.get(f"{at}/updates?limit=1").json()[0]
    assert (newest["device"], newest["sequence"], newest["merged_in"]) == ("b", 2, 1)
    assert newest["size_bytes"] == len(make_update(bundle, 2).encode())
    mine = client.get(f"{at}/updates?device=a").json()
    assert [update["metrics"] for update in mine] == [{"hr_at_10": 1.0}]
    devices = client.get(f"{at}/devices").json()
    assert [(d["device"], d["state"], d["accepted"]) for d in devices] == [
        ("a", "online", 1),
        ("b", "unknown", 2),
    ]
    assert client.get(f"{at}/updates?limit=0").status_code == 422
    recent = client.get(f"{at}/devices?order=recent&limit=1").json()
    assert recent == devices[:1]
    assert client.get(f"{at}/devices?order=recent&after=a").status_code == 422
    assert client.get(f"{at}/devices?order=age").status_code == 422


def test_the_token_guards_every_change_and_no_reading(service: Service, bundle: Bundle) -> None:
    at = f"/v1/tasks/{bundle.task}"
    with service.client(api_token="sesame") as client:
        for answer in (
            client.patch(at, json={"paused": True}),
            client.post("/v1/tasks", content=bundle.raw_manifest),
            client.put(f"/v1/blobs/{'0' * 64}", content=b"x"),
            client.patch(at, json={"paused": True}, headers={"Authorization": "Bearer wrong"}),
            client.patch(at, json={"paused": True}, headers={"Authorization": "Basic sesame"}),
        ):
            assert answer.status_code == 401
            assert "api_token" in answer.json()["detail"]
        token = {"Authorization": "Bearer sesame"}
        assert client.patch(at, json={"paused": True}, headers=token).status_code == 200
        assert client.get(at).json()["paused"] is True


ABSURD = [
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 400,
    "1e999",
    "NaN",
    "Infinity",
    "[" * 5000,
    '"\\ud800"',
]


@pytest.mark.parametrize(
    "body",
    [
        '{"paused": VALUE}',
        '{"training": VALUE}',
        '{"training": {"learning_rate": VALUE}}',
        '{"codec": {"bits": VALUE}}',
        '{"rule": {"max_wait_s": VALUE}}',
    ],
)
def test_absurd_orders_are_refused_and_change_nothing(
    client: httpx.Client, bundle: Bundle, body: str
) -> None:
    at = f"/v1/tasks/{bundle.task}"
    before = client.get(at).json()
    for value in ABSURD:
        content = body.replace("VALUE", value)
        assert client.patch(at, content=content).status_code == 422, value[:9]
        assert client.post("/v1/tasks", content=content).status_code == 422, value[:9]
        assert client.get(at).json() == before, value[:9]


@pytest.mark.parametrize("error", [TimeoutError(), LedgerUnavailableError("disk full")])
def test_a_service_that_cannot_change_anything_now_says_when_to_try_again(
    client: httpx.Client, service: Service, bundle: Bundle, error: Exception
) -> None:
    service.refusal = error
    answer = client.patch(f"/v1/tasks/{bundle.task}", json={"paused": True})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "try again" in answer.json()["detail"]
