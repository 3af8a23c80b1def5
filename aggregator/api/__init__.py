"""The HTTP API: tasks, versions, updates, devices, events and blobs; health and metrics."""

from aggregator.api.app import create_app
from aggregator.api.core import Core, Readiness

__all__ = ["Core", "Readiness", "create_app"]
