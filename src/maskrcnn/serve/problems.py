"""Answers that say no, as RFC 9457 describes them."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import responses
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from maskrcnn.errors import MaskRCNNError

CLIENT_CLOSED_REQUEST = 499  # nginx's number, for the log: nobody reads this answer
CLOSED_TITLE = "Client Closed Request"


class RefusalError(MaskRCNNError):
    """A request that gets no result, with the HTTP status that says why."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.args[0], self.headers)


def problem(path: str, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The body of an error: RFC 9457, or the `error` of the Open Inference Protocol below `/v2`."""
    if path == "/v2" or path.startswith("/v2/"):
        return JSONResponse({"error": detail}, status, headers)
    title = responses.get(status, CLOSED_TITLE)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def answer_errors(app: FastAPI) -> None:
    """Makes every error of the routes of `app` such an answer."""

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        return problem(request.url.path, error.status, str(error), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return problem(request.url.path, 400, in_words(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem(request.url.path, error.status_code, _found(request, error), error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return problem(request.url.path, 500, "the server failed; its log has the reason")


def _found(request: Request, error: HTTPException) -> str:
    """Why no route answers: Starlette says only "Not Found" and "Method Not Allowed"."""
    if error.status_code == 404:
        return f"expected an address that /docs lists, found {request.url.path}"
    if error.status_code == 405:
        return f"expected {(error.headers or {}).get('Allow', 'another method')}, found {request.method}"
    return str(error.detail)


def in_words(errors: Any) -> str:
    """The problems that pydantic found in a request, in one line."""
    return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in errors)
