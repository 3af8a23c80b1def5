import pytest

from tests.edge_agent.tiny_task import TinyTask, make_task


@pytest.fixture
def task() -> TinyTask:
    return make_task()
