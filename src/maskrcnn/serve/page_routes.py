"""The page at `/`: files of this package, which load nothing from another host."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastapi import FastAPI, Response

FOLDER = Path(__file__).with_name("page")
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/masks.js": ("masks.js", "text/javascript"),
    "/downloads.js": ("downloads.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_routes(app: FastAPI) -> None:
    for path, (name, kind) in FILES.items():
        app.add_api_route(
            path, partial(_file, (FOLDER / name).read_bytes(), kind), include_in_schema=False, response_model=None
        )


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers=HEADERS)
