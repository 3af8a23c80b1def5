"""Where a task's model goes on from: older versions, and versions without some updates."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, status

from aggregator.api.core import BodyOf, Core, CoreOf, TaskOf, authorised
from aggregator.api.models import LineageDocument, NewVersionDocument, RollbackDocument
from aggregator.commands import ForgetLineage, Promote, Rollback
from aggregator.ledger import LineageRecord

__all__ = ["router"]

router = APIRouter(prefix="/v1/tasks/{task}", tags=["lineages"])
Number = Annotated[int, Path(ge=0, le=2**53 - 1)]
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "it cannot be made (any more); says why"}
}


@router.post(
    "/rollback",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(authorised)],
    responses=_CONFLICT,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RollbackDocument.model_json_schema()}},
        }
    },
)
def roll_back(core: CoreOf, record: TaskOf, wish: BodyOf) -> NewVersionDocument:
    """Make the next version with the parameters of an older one. Nothing is destroyed."""
    version = RollbackDocument.model_validate_json(wish).version
    made = core.call(Rollback(record.task, version))
    return NewVersionDocument(version=made)


@router.get("/lineages")
def list_lineages(core: CoreOf, record: TaskOf) -> list[LineageDocument]:
    """What `rivulet-aggregator refold` has made, oldest first."""
    found = core.reports.past.lineages(record.task)
    return [LineageDocument.model_validate(lineage) for lineage in found]


@router.post(
    "/lineages/{lineage}/promote",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(authorised)],
    responses=_CONFLICT,
)
def promote(core: CoreOf, record: TaskOf, lineage: Number) -> NewVersionDocument:
    """Make a lineage, with the merges since it was folded, the next version."""
    found = _find(core, record.task, lineage)
    made = core.call(Promote(record.task, found.id))
    return NewVersionDocument(version=made)


@router.delete(
    "/lineages/{lineage}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[Depends(authorised)],
)
def forget(core: CoreOf, record: TaskOf, lineage: Number) -> None:
    """Forget a lineage and its snapshot; versions that it was promoted to stay."""
    found = _find(core, record.task, lineage)
    core.call(ForgetLineage(record.task, found.id))


def _find(core: Core, task: str, lineage: int) -> LineageRecord:
    found = core.reports.past.lineage(task, lineage)
    if found is None:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"no lineage {lineage}; GET /v1/tasks/{task}/lineages lists them",
        )
    return found
