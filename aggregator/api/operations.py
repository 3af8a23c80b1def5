"""For whoever runs the service: is it alive, is it ready, what does it count."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response, status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from aggregator.api.core import CoreOf

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def health() -> dict[str, str]:
    """Answers while the process lives."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "not ready; says why"}})
def readiness(core: CoreOf, response: Response) -> dict[str, Any]:
    """Whether updates are taken: broker delivers, engine runs, database can be written."""
    found = core.readiness()
    if not found.ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return {"ready": found.ready, "problems": {k: v for k, v in asdict(found).items() if v}}


@router.get("/metrics", response_class=Response)
def metrics(core: CoreOf) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(core.instruments.registry), media_type=CONTENT_TYPE_LATEST)
