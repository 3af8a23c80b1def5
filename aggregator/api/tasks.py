"""Tasks: what is trained, how, and how it is going."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Response, status

from aggregator.api.core import BodyOf, Core, CoreOf, TaskOf, authorised
from aggregator.api.models import (
    DeviceDocument,
    NewTaskDocument,
    RetentionDocument,
    SteeringDocument,
    TaskDetailDocument,
    TaskDocument,
    UpdateDocument,
)
from aggregator.commands import CreateTask, Steer
from aggregator.compaction import reach
from aggregator.ledger import TaskRecord
from aggregator.orders import Steering
from aggregator.summary import summarise

__all__ = ["router"]

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.get("")
def list_tasks(core: CoreOf) -> list[TaskDocument]:
    """Every task, oldest first."""
    found = core.reports.tasks()
    return [TaskDocument(**_fields(core, record, newest)) for record, newest in found]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(authorised)],
    responses={409: {"description": "files of the bundle are missing"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "the bytes of the bundle's manifest.json, unchanged",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
def create_task(core: CoreOf, manifest: BodyOf) -> NewTaskDocument:
    """Make a task of a bundle whose files are blobs. The same manifest, the same task."""
    return NewTaskDocument(task=core.call(CreateTask(manifest)))


@router.get("/{task}")
def get_task(core: CoreOf, record: TaskOf) -> TaskDetailDocument:
    """A task and how it is run."""
    return TaskDetailDocument(
        **_fields(core, record, core.reports.newest_version(record.task)),
        training=dict(record.training),
        codec=dict(record.codec),
        rule=dict(record.rule),
    )


@router.patch(
    "/{task}",
    dependencies=[Depends(authorised)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": SteeringDocument.model_json_schema()}},
        }
    },
)
def steer_task(core: CoreOf, record: TaskOf, changes: BodyOf) -> TaskDetailDocument:
    """Change how a task is run; devices are told at once. All of it is changed, or nothing."""
    steering = Steering(**SteeringDocument.model_validate_json(changes).model_dump())
    core.call(Steer(record.task, steering))
    changed = core.reports.task(record.task) or record
    return get_task(core, changed)


@router.get("/{task}/manifest", response_class=Response)
def get_manifest(record: TaskOf) -> Response:
    """The manifest's very bytes; their SHA-256 begins with the task's name."""
    return Response(record.manifest, media_type="application/json")


@router.get("/{task}/summary")
def get_summary(core: CoreOf, record: TaskOf) -> dict[str, Any]:
    """Everything that the dashboard shows, from running totals."""
    return summarise(core.reports, record, now=core.now())


@router.get("/{task}/retention")
def get_retention(core: CoreOf, record: TaskOf) -> RetentionDocument:
    """What of the task's past can still be made again or left out, and what is lost next."""
    found = reach(core.reports.past, core.retention, record.task)
    return RetentionDocument(sentence=found.describe(), **asdict(found))


@router.get("/{task}/updates")
def list_updates(
    core: CoreOf,
    record: TaskOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    device: Annotated[str | None, Query(description="only of this device")] = None,
) -> list[UpdateDocument]:
    """Accepted updates, newest first, without their content."""
    found = core.reports.updates(record.task, limit=limit, device=device)
    return [UpdateDocument.model_validate(update) for update in found]


@router.get("/{task}/devices")
def list_devices(
    core: CoreOf,
    record: TaskOf,
    after: Annotated[str, Query(description="name of the last device of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    order: Annotated[
        Literal["name", "recent"], Query(description="by name, or the one seen last first")
    ] = "name",
) -> list[DeviceDocument]:
    """Devices that sent something for this task, and those that sent nothing yet."""
    if order == "recent" and after:
        raise HTTPException(
            status.HTTP_422_UNPROCESSABLE_CONTENT, "after pages through order=name only"
        )
    if order == "recent":
        found = core.reports.recent_devices(record.task, limit=limit)
    else:
        found = core.reports.devices(record.task, after=after, limit=limit)
    return [DeviceDocument.model_validate(device) for device in found]


def _fields(core: Core, record: TaskRecord, newest: int) -> dict[str, Any]:
    return TaskDocument.fields_of(record, newest, core.reports.newest_publication(record.task))
