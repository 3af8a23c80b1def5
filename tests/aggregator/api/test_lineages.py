"""Rollback and promotion over HTTP."""

import httpx
import pytest

from aggregator.ledger import Exclusion
from aggregator.refolding import refold
from tests.aggregator.api.conftest import Service
from tests.aggregator.training import go_on
from tests.aggregator.workshop import Workshop
from wire.bundle import Bundle


@pytest.fixture
def lineage(workshop: Workshop, bundle: Bundle) -> int:
    """Of version 2, without device a."""
    go_on(workshop, bundle, "abcabc", first=1)
    specs, without = bundle.manifest.federated, Exclusion(devices=("a",))
    made = refold(workshop.ledger, workshop.blobs, bundle.task, specs, without)
    return made.keep(workshop.ledger, workshop.blobs, task=bundle.task, at=7.0).id


def test_a_rollback_makes_a_version(
    client: httpx.Client, workshop: Workshop, bundle: Bundle, lineage: int
) -> None:
    made = client.post(f"/v1/tasks/{bundle.task}/rollback", json={"version": 1})
    assert (made.status_code, made.json()) == (201, {"version": 3})
    version = client.get(f"/v1/tasks/{bundle.task}/versions/3").json()
    assert (version["origin"]["kind"], version["origin"]["of"]) == ("rollback", 1)
    assert client.get(f"/v1/tasks/{bundle.task}/versions/2").json()["origin"] is None
    assert workshop.outbox.announcements(bundle.task)[-1].version == 3


def test_a_lineage_is_listed_promoted_and_forgotten(
    client: httpx.Client, bundle: Bundle, lineage: int
) -> None:
    at = f"/v1/tasks/{bundle.task}/lineages"
    (listed,) = client.get(at).json()
    assert (listed["id"], listed["version"], listed["created_at"]) == (lineage, 2, 7.0)
    assert listed["excluded"] == {"devices": ["a"], "since": None, "until": None}
    assert listed["changes"]["updates"] == 2
    assert set(listed["changes"]["parameters"]) == {"item", "head"}
    made = client.post(f"{at}/{lineage}/promote")
    assert (made.status_code, made.json()) == (201, {"version": 3})
    assert client.get(f"/v1/tasks/{bundle.task}/versions/3").json()["sha256"] == listed["sha256"]
    assert client.delete(f"{at}/{lineage}").status_code == 204
    assert client.get(at).json() == []
    assert client.get(f"/v1/blobs/{listed['sha256']}").status_code == 200


def test_what_cannot_be_made_is_refused_with_a_sentence(
    client: httpx.Client, bundle: Bundle, lineage: int
) -> None:
    at = f"/v1/tasks/{bundle.task}"
    future = client.post(f"{at}/rollback", json={"version": 9})
    assert (future.status_code, future.json()["detail"]) == (
        409,
        "version 9 is not an older one; give one from 0 to 1",
    )
    for body in ({"version": -1}, {"version": "x"}, {}, {"version": 1, "more": 1}):
        assert client.post(f"{at}/rollback", json=body).status_code == 422
    assert client.post("/v1/tasks/none/rollback", json={"version": 0}).status_code == 404
    for wish in (client.post(f"{at}/lineages/99/promote"), client.delete(f"{at}/lineages/99")):
        assert wish.status_code == 404
        assert "no lineage 99" in wish.json()["detail"]
    client.post(f"{at}/rollback", json={"version": 1})
    late = client.post(f"{at}/lineages/{lineage}/promote")
    assert late.status_code == 409
    assert "refold again" in late.json()["detail"]


def test_the_way_is_changed_with_the_token_only(
    service: Service, bundle: Bundle, lineage: int
) -> None:
    at = f"/v1/tasks/{bundle.task}"
    with service.client("sesame") as client:
        assert client.post(f"{at}/rollback", json={"version": 1}).status_code == 401
        assert client.post(f"{at}/lineages/{lineage}/promote").status_code == 401
        assert client.delete(f"{at}/lineages/{lineage}").status_code == 401
        assert len(client.get(f"{at}/lineages").json()) == 1
        client.headers["Authorization"] = "Bearer sesame"
        assert client.post(f"{at}/rollback", json={"version": 1}).status_code == 201
