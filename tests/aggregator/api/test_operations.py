"""Health, readiness, metrics, events, and the API's own description."""

import httpx

from aggregator.api import Readiness
from tests.aggregator.api.conftest import Service
from tests.aggregator.workshop import Workshop, make_update
from wire.bundle import Bundle


def test_health_and_readiness(client: httpx.Client, service: Service) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = {"ready": True, "role": "all", "state": "working", "problems": {}}
    assert client.get("/readyz").json() == ready
    service.problems = Readiness(broker="not connected", engine=None, database="disk full")
    unready = client.get("/readyz")
    assert unready.status_code == 503
    assert unready.json() == {
        "ready": False,
        "role": "all",
        "state": "working",
        "problems": {"broker": "not connected", "database": "disk full"},
    }
    assert client.get("/healthz").status_code == 200
    service.problems = Readiness(None, None, None, stands_by=True)
    assert client.get("/readyz").json() == ready | {"state": "standing by"}


def test_metrics_are_in_the_text_format(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "# TYPE rivulet_updates_total counter" in answer.text
    assert "# TYPE rivulet_commit_seconds histogram" in answer.text


def test_events_are_read_from_a_cursor(
    client: httpx.Client, workshop: Workshop, bundle: Bundle
) -> None:
    workshop.send("a", make_update(bundle, 1, base=7))
    events = client.get("/v1/events").json()
    assert [event["kind"] for event in events] == ["started", "task-created", "refused"]
    assert events[-1]["device"] == "a"
    assert "from-the-future" in events[-1]["detail"]
    assert client.get(f"/v1/events?after={events[1]['id']}").json() == events[2:]
    assert client.get("/v1/events?limit=1").json() == events[:1]


def test_every_operation_is_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/tasks/{task}/versions/{version}/parameters" in paths
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"


def test_an_unknown_address_is_json(client: httpx.Client) -> None:
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
