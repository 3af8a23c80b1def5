"""Versions of a task's model."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, status
from fastapi.responses import RedirectResponse

from aggregator.api.core import Core, CoreOf, TaskOf
from aggregator.api.models import VersionDocument
from aggregator.ledger import VersionReport

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
    """To the blob with a version's federated parameters, a safetensors file."""
    sha256 = _find(core, record.task, version).version.sha256
    if not core.blobs.has(sha256):
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            f"the snapshot of version {version} was removed to save space; "
            "take a newer version, or one that the retention settings keep",
        )
    return RedirectResponse(f"/v1/blobs/{sha256}")


def _find(core: Core, task: str, version: int) -> VersionReport:
    found = core.reports.versions(task, only=version)
    if not found:
        newest = core.reports.newest_version(task)
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, f"no version {version}; the newest is {newest}"
        )
    return found[0]
