"""For whoever runs the service: is it alive, is it ready, what does it count."""

from typing import Any

from fastapi import APIRouter, Response, status
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from aggregator.api.core import VitalsOf

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def health() -> dict[str, str]:
    """Answers while the process lives."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "not ready; says why"}})
def readiness(vitals: VitalsOf, response: Response) -> dict[str, Any]:
    """Whether the role can be filled: broker delivers, engine runs, database can be written."""
    found = vitals.readiness()
    if not found.ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    parts = ("broker", "engine", "database")
    problems = {part: problem for part in parts if (problem := getattr(found, part))}
    state = "standing by" if found.stands_by else "working"
    return {"ready": found.ready, "role": vitals.role, "state": state, "problems": problems}


@router.get("/metrics", response_class=Response)
def metrics(vitals: VitalsOf) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(vitals.instruments.registry), media_type=CONTENT_TYPE_LATEST)
