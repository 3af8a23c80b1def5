"""Versions over HTTP."""

import httpx
import numpy as np
from safetensors.numpy import load

from aggregator.retention import Retention
from tests.aggregator.workshop import Workshop, make_update
from wire.bundle import Bundle
from wire.messages import Metric


def train(workshop: Workshop, bundle: Bundle, versions: int) -> None:
    for number in range(1, 3 * versions + 1):
        base = max(0, (number - 1) // 3 - 1)
        metrics = {Metric.HR_AT_10: 1.0, Metric.NDCG_AT_10: 0.5, Metric.EVAL_LOSS: 0.25}
        workshop.send("a", make_update(bundle, number, base=base, metrics=metrics))


def test_versions_say_what_made_them(
    client: httpx.Client, workshop: Workshop, bundle: Bundle
) -> None:
    train(workshop, bundle, 3)
    at = f"/v1/tasks/{bundle.task}/versions"
    listed = client.get(at).json()
    assert [v["version"] for v in listed] == [0, 1, 2, 3]
    assert [v["updates"] for v in listed] == [0, 3, 3, 3]
    assert [v["mean_staleness"] for v in listed] == [None, 0.0, 1.0, 1.0]
    assert listed[0]["hr_at_10"] == 1.0
    assert listed[3]["hr_at_10"] is None
    assert listed[1]["rule"]["buffer_size"] == 3
    assert client.get(f"{at}/2").json() == listed[2]
    assert [v["version"] for v in client.get(f"{at}?after=1&limit=1").json()] == [2]
    missing = client.get(f"{at}/9")
    assert missing.status_code == 404
    assert missing.json()["detail"] == "no version 9; the newest is 3"


def test_parameters_are_what_devices_share(
    client: httpx.Client, workshop: Workshop, bundle: Bundle
) -> None:
    train(workshop, bundle, 1)
    at = f"/v1/tasks/{bundle.task}/versions/1/parameters"
    redirect = client.get(at, follow_redirects=False)
    assert redirect.status_code == 307
    parameters = load(client.get(at).content)
    task = workshop.engine.tasks[bundle.task]
    assert task.published is not None
    for name, exact in task.state.parameters.items():
        step = 2.0 ** task.published.exponents[name]
        assert np.array_equal(parameters[name], np.rint(exact / step) * step)
        assert np.abs(parameters[name] - exact).max() <= step / 2


def test_a_pruned_version_says_so(client: httpx.Client, workshop: Workshop, bundle: Bundle) -> None:
    workshop.engine._retention = Retention(keep_publications=1)
    train(workshop, bundle, 2)
    gone = client.get(f"/v1/tasks/{bundle.task}/versions/1/parameters")
    assert gone.status_code == 404
    detail = "version 1 is not published (any more); the newest that is, is 2"
    assert gone.json()["detail"] == detail
    assert client.get(f"/v1/tasks/{bundle.task}/versions/2/parameters").status_code == 200
