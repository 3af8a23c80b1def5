"""The page that an operator looks at: ``/dashboard``, live, from the aggregator's own API."""

from aggregator.dashboard.routes import router

__all__ = ["router"]
