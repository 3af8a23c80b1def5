"""What happened."""

from typing import Annotated

from fastapi import APIRouter, Query

from aggregator.api.core import CoreOf
from aggregator.api.models import EventDocument

__all__ = ["router"]

router = APIRouter(prefix="/v1/events", tags=["events"])


@router.get("")
def list_events(
    core: CoreOf,
    after: Annotated[int, Query(ge=0, le=2**53 - 1, description="id of the last known event")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[EventDocument]:
    """Events later than ``after``, oldest first. The newest ten thousand are kept."""
    found = core.reports.events(after=after, limit=limit)
    return [EventDocument.model_validate(event) for event in found]
