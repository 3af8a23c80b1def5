"""The FastAPI application."""

import logging
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from aggregator import dashboard
from aggregator.api import blobs, events, lineages, operations, tasks, versions
from aggregator.api.core import Core, Vitals
from aggregator.blobs import BlobsUnavailableError
from aggregator.engine import TaskError
from aggregator.fold import FoldError
from aggregator.ledger import LedgerUnavailableError
from aggregator.patches import UnpublishedError
from wire.errors import WireError

__all__ = ["create_app"]

DESCRIPTION = """
Rivulet's aggregator merges what devices learn into versions of a recommender.

* Devices talk MQTT for updates and receipts, and use this API to fetch bundles and parameters.
* Operators make tasks (`PUT /v1/blobs/{sha256}` for each file of a bundle, then `POST /v1/tasks`
  with its manifest), steer them (`PATCH /v1/tasks/{task}`) and watch them. They go back to an older
  version (`POST /v1/tasks/{task}/rollback`) or on from one without some updates
  (`POST /v1/tasks/{task}/lineages/{lineage}/promote`).
* Reading is free; changing something needs `Authorization: Bearer` when the service has a token.

Times are seconds since 1970. An error is `{"detail": "a sentence that says what to do"}`.
"""

_log = logging.getLogger(__name__)


def create_app(vitals: Vitals, core: Core | None = None) -> FastAPI:
    """The application, and the dashboard with it.

    Args:
        vitals: what the process tells of itself.
        core: what the API stands on; without it there are health and metrics only.
    """
    app = FastAPI(
        title="Rivulet aggregator",
        version=_version(),
        description=DESCRIPTION.strip(),
        # Both pages would load their scripts from a public server; /openapi.json says the same.
        docs_url=None,
        redoc_url=None,
    )
    app.state.vitals, app.state.core = vitals, core
    app.include_router(operations.router)
    if core is not None:
        for part in (tasks, versions, lineages, events, blobs, dashboard):
            app.include_router(part.router)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(ValidationError, _not_valid)
    app.add_exception_handler(WireError, _refused)
    app.add_exception_handler(TaskError, _incomplete)
    app.add_exception_handler(FoldError, _incomplete)
    app.add_exception_handler(LedgerUnavailableError, _unavailable)
    app.add_exception_handler(BlobsUnavailableError, _unavailable)
    app.add_exception_handler(UnpublishedError, _unpublished)
    app.add_exception_handler(TimeoutError, _unavailable)
    return app


def _version() -> str:
    try:
        return version("rivulet")
    except PackageNotFoundError:
        return "unknown"  # Run from a checkout that was not installed.


def _not_valid(_request: Request, error: Exception) -> JSONResponse:
    sentences: list[str] = []
    if isinstance(error, RequestValidationError):
        sentences = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    elif isinstance(error, ValidationError):
        sentences = [
            f"{'.'.join(map(str, problem['loc'])) or 'the body'}: {problem['msg']}"
            for problem in error.errors()
        ]
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, "; ".join(sentences))


def _refused(_request: Request, error: Exception) -> JSONResponse:
    return _answer(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error))


def _incomplete(_request: Request, error: Exception) -> JSONResponse:
    return _answer(status.HTTP_409_CONFLICT, str(error))


def _unpublished(_request: Request, error: Exception) -> JSONResponse:
    return _answer(status.HTTP_404_NOT_FOUND, str(error))


def _unavailable(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s: %s", request.method, request.url.path, error)
    busy = "the service is busy, or its database or its blobs are away; try again in a few seconds"
    answer = _answer(status.HTTP_503_SERVICE_UNAVAILABLE, busy)
    answer.headers["Retry-After"] = "5"
    return answer


def _answer(code: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, code)
