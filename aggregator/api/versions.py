"""Versions of a task's model."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response, status
from fastapi.responses import RedirectResponse

from aggregator.api.core import BodyOf, Core, CoreOf, TaskOf
from aggregator.api.models import PatchDocument, VersionDocument
from aggregator.ledger import VersionReport
from wire.manifest import Manifest

__all__ = ["router"]

router = APIRouter(prefix="/v1/tasks/{task}/versions", tags=["versions"])
Number = Annotated[int, Path(ge=0, le=2**53 - 1)]


@router.get("")
def list_versions(
    core: CoreOf,
    record: TaskOf,
    after: Annotated[int, Query(ge=-1, le=2**53 - 1, description="only later ones")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[VersionDocument]:
    """Versions in order, from the one after ``after``."""
    found = core.reports.versions(record.task, after=after, limit=limit)
    return [VersionDocument.of(report) for report in found]


@router.get("/{version}")
def get_version(core: CoreOf, record: TaskOf, version: Number) -> VersionDocument:
    """One version."""
    return VersionDocument.of(_find(core, record.task, version))


@router.get(
    "/{version}/parameters",
    status_code=status.HTTP_307_TEMPORARY_REDIRECT,
    response_class=RedirectResponse,
)
def get_parameters(core: CoreOf, record: TaskOf, version: Number) -> RedirectResponse:
    """To the blob that devices of this version start from, a safetensors file.

    Versions that devices were not told about, and old ones, have none.
    """
    found = core.reports.publication(record.task, version)
    if found is None:
        newest = core.reports.newest_publication(record.task)
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"version {version} is not published (any more); the newest that is, is {newest}",
        )
    return RedirectResponse(f"/v1/blobs/{found.sha256}")


@router.get("/{version}/patches")
def list_patches(
    core: CoreOf,
    record: TaskOf,
    version: Number,
    base: Annotated[
        int | None, Query(ge=0, le=2**53 - 1, description="the version on the device")
    ] = None,
) -> list[PatchDocument]:
    """What leads to a published version in fewer bytes than its file, the smallest first."""
    manifest = Manifest.from_json(record.manifest)
    found = core.patches.to(record.task, manifest, version, base)
    return [PatchDocument.model_validate(patch) for patch in found]


@router.post(
    "/{version}/rows",
    response_class=Response,
    responses={403: {"description": "the task does not allow it"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "the numbers of the rows, as an index set of the wire format",
            "content": {"application/octet-stream": {}},
        }
    },
)
def get_rows(core: CoreOf, record: TaskOf, version: Number, wanted: BodyOf) -> Response:
    """Some rows of a published version: a patch of zeros. The address never names the rows."""
    manifest = Manifest.from_json(record.manifest)
    if not manifest.row_requests:
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            "this task's manifest keeps it from being known which rows a device needs; "
            "take the version's patches or its file",
        )
    payload = core.patches.rows(record.task, manifest, version, wanted)
    headers = {"Cache-Control": "no-store"}
    return Response(payload, media_type="application/octet-stream", headers=headers)


def _find(core: Core, task: str, version: int) -> VersionReport:
    found = core.reports.versions(task, only=version)
    if not found:
        newest = core.reports.newest_version(task)
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"no version {version}; the newest is {newest}"
        )
    return found[0]
