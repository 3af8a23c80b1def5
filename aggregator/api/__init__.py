"""The HTTP API: tasks, versions, updates, devices, events and blobs; health and metrics."""

from aggregator.api.app import create_app
from aggregator.api.core import Call, Core, Readiness, Vitals

__all__ = ["Call", "Core", "Readiness", "Vitals", "create_app"]
