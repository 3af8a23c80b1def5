"""Blobs: immutable files by their SHA-256. Bundles are uploaded, devices download parameters.

Wherever the blobs are kept, a download comes from a file of this machine, with ranges, unless the
operator has clients sent to the place itself.
"""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, RedirectResponse

from aggregator.api.core import Core, CoreOf, authorised
from aggregator.blobs import BlobError

__all__ = ["router"]

MAX_BLOB_BYTES = 1 << 32

router = APIRouter(prefix="/v1/blobs", tags=["blobs"])


@router.put("/{sha256}", status_code=status.HTTP_201_CREATED, dependencies=[Depends(authorised)])
async def put_blob(core: CoreOf, sha256: str, request: Request) -> dict[str, int]:
    """Store the body, whose SHA-256 must be the address's. Storing it again is no error."""
    try:
        with core.blobs.upload(sha256) as upload:
            async for portion in request.stream():
                await run_in_threadpool(upload.write, portion)
                if upload.size_bytes > MAX_BLOB_BYTES:
                    raise HTTPException(
                        status.HTTP_413_CONTENT_TOO_LARGE, f"at most {MAX_BLOB_BYTES} bytes"
                    )
    except BlobError as error:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, str(error)) from None
    return {"size_bytes": upload.size_bytes}


@router.head("/{sha256}", include_in_schema=False)
@router.get(
    "/{sha256}",
    response_class=FileResponse,
    responses={307: {"description": "to where the blobs are kept, if the service is told so"}},
)
def get_blob(
    core: CoreOf, sha256: str, request: Request, if_none_match: Annotated[str, Header()] = ""
) -> Response:
    """The file, or the patch. Ranges are served, so an interrupted download can be resumed."""
    try:
        # A signed address is good for one method.
        address = _address(core, sha256) if request.method == "GET" else None
        if address is not None:
            return RedirectResponse(address, headers={"Cache-Control": "no-store"})
        path = _path(core, sha256)
    except KeyError:
        raise HTTPException(
            status.HTTP_404_NOT_FOUND,
            "no such blob; snapshots of old versions are removed, so start from the announced one",
        ) from None
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "public, max-age=31536000, immutable"}
    if sha256 in if_none_match:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


def _address(core: Core, sha256: str) -> str | None:
    return None if _is_patch(core, sha256) else core.blobs.address(sha256)


def _path(core: Core, sha256: str) -> Path:
    return core.patches.path(sha256) if _is_patch(core, sha256) else core.blobs.path(sha256)


def _is_patch(core: Core, sha256: str) -> bool:
    # They are on this machine, so they are asked first.
    try:
        core.patches.path(sha256)
    except KeyError:
        return False
    return True
