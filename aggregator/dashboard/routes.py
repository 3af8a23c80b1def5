"""Serves the page, its files, and plotly.js out of the installed Python package."""

import gzip
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Header, Response

from wire.messages import Refusal

__all__ = ["router"]

FOREVER = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
FILES = {
    "style.css": "text/css",
    "app.js": "text/javascript",
    "api.js": "text/javascript",
    "charts.js": "text/javascript",
    "format.js": "text/javascript",
    "page.js": "text/javascript",
    "tables.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# Plotly writes its own style rules and style attributes; scripts come from this service only.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/dashboard")
def page() -> Response:
    """The page. It holds no data: its script asks the API."""
    headers = {
        "Cache-Control": REVALIDATE,
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    html = _read("index.html").replace(b"PLOTLY_VERSION", version("plotly").encode())
    return Response(html, media_type="text/html", headers=headers)


@router.get("/dashboard/refusals.json")
def refusals() -> dict[str, str]:
    """What to do about each reason of refusal, by its slug."""
    return {refusal.slug: refusal.advice for refusal in Refusal}


@router.get("/dashboard/plotly-{package_version}.min.js")
def plotly(package_version: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """The chart library; its address changes with its version, so a browser keeps it."""
    if package_version != version("plotly"):
        return Response(status_code=404)
    headers = {"Cache-Control": FOREVER, "Vary": "Accept-Encoding"}
    if "gzip" in accept_encoding:
        headers["Content-Encoding"] = "gzip"
        return Response(_packed_plotly(), media_type="text/javascript", headers=headers)
    return Response(_read_plotly(), media_type="text/javascript", headers=headers)


@router.get("/dashboard/{name}")
def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    """One of the page's own files, checked for a change at each load."""
    if name not in FILES:
        return Response(status_code=404)
    body, tag = _tagged(name)
    headers = {"Cache-Control": REVALIDATE, "ETag": tag, "X-Content-Type-Options": "nosniff"}
    if tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=FILES[name], headers=headers)


@cache
def _tagged(name: str) -> tuple[bytes, str]:
    body = _read(name)
    return body, f'"{sha256(body).hexdigest()[:16]}"'


@cache
def _read(name: str) -> bytes:
    return (resources.files(__package__) / "static" / name).read_bytes()


@cache
def _packed_plotly() -> bytes:
    # 4.8 MB as it is, 1.5 MB packed, which a phone notices.
    return gzip.compress(_read_plotly(), mtime=0)


def _read_plotly() -> bytes:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
