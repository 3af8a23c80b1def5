"""What a person can ask a device: answers come from the task that it takes part in."""

import dataclasses
from pathlib import Path

import pytest

from edge_agent.errors import StoreError
from edge_agent.inspection import recommendations
from edge_agent.state_dir import open_downloads
from tests.edge_agent.fakes import Device
from tests.edge_agent.tiny_task import TinyTask


def test_recommendations_come_from_the_task_of_the_settings(tmp_path: Path, task: TinyTask) -> None:
    device = Device(tmp_path, task)
    device.ready(3, 14, 15)
    device.update()
    open_downloads(device.config)
    for sha256, blob in task.blobs.items():
        for folder in ("files", "snapshots"):
            (tmp_path / folder / sha256).write_bytes(blob)
    device.store.close()
    assert len(recommendations(device.config, 5)) == 5
    other = dataclasses.replace(device.config, task="ab" * 16)
    with pytest.raises(StoreError, match="no model is on this device yet"):
        recommendations(other, 5)
