"""What a person can ask a device: answers come from the task that it takes part in."""

import dataclasses
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig
from edge_agent.errors import InteractionError, StoreError
from edge_agent.inspection import recommendations
from edge_agent.interactions import Interaction
from edge_agent.state_dir import open_downloads, open_store
from tests.edge_agent.fakes import Device
from tests.edge_agent.history_task import make_context_task
from tests.edge_agent.tiny_task import TinyTask


def at_rest(root: Path, task: TinyTask, *items: int) -> AgentConfig:
    """A device that trained once and stopped, its files where a device has them."""
    device = Device(root, task)
    device.ready(*items)
    device.update()
    open_downloads(device.config)
    for sha256, blob in task.blobs.items():
        for folder in ("files", "snapshots"):
            (root / folder / sha256).write_bytes(blob)
    device.store.close()
    return device.config


def test_recommendations_come_from_the_task_of_the_settings(tmp_path: Path, task: TinyTask) -> None:
    config = at_rest(tmp_path, task, 3, 14, 15)
    assert len(recommendations(config, 5, {})) == 5
    other = dataclasses.replace(config, task="ab" * 16)
    with pytest.raises(StoreError, match="no model is on this device yet"):
        recommendations(other, 5, {})


def test_recommendations_in_a_context_which_is_the_newest_one_unless_it_is_given(
    tmp_path: Path,
) -> None:
    """The daytime's bias moves all scores of this recommender alike."""
    task = make_context_task()
    config = at_rest(tmp_path, task, 3, 14, 15)
    store = open_store(config)
    latest = Interaction(26, store.get("next_update_at"), {"daytime": 2, "weekday": 7})
    store.add_interactions([latest])
    store.close()
    scores = {
        daytime: dict(recommendations(config, 3, {"daytime": daytime, "weekday": 1}))
        for daytime in range(4)
    }
    assert dict(recommendations(config, 3, {})) == scores[2]
    assert dict(recommendations(config, 3, {"weekday": 0})) == scores[2]
    bias = task.start["daytime"]
    for daytime, found in scores.items():
        for item, score in found.items():
            moved = scores[0][item] + float(bias[daytime] - bias[0])
            assert score == pytest.approx(moved, abs=1e-5)
    with pytest.raises(InteractionError, match="daytime has 4 values, 0 to 3"):
        recommendations(config, 3, {"daytime": 4})
    with pytest.raises(InteractionError, match="no context field 'mood'"):
        recommendations(config, 3, {"mood": 1})


def test_what_was_used_before_is_recommended_only_on_request(
    tmp_path: Path, task: TinyTask
) -> None:
    config = at_rest(tmp_path, task, 3, 14, 15)
    assert not {3, 14, 15} & {item for item, _ in recommendations(config, 60, {})}
    assert len(recommendations(config, 60, {}, again=True)) == 60
