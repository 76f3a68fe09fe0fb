"""What every request passes: the token, the log and the counts."""

from __future__ import annotations

import base64
import hmac
import logging
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskrcnn.serve.problems import problem
from maskrcnn.serve.service import Service

LOG = logging.getLogger("maskrcnn.serve")
# The only paths that answer without the token.
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})

CHALLENGE = 'Bearer, Basic realm="maskrcnn, the token is the password"'  # browsers ask for the second


class Guard:
    """Asks for the token before anything of a request is read, and notes each answer."""

    def __init__(self, app: ASGIApp, token: str | None, service: Service) -> None:
        self.app, self.token, self.service = app, token, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, number = time.monotonic(), 0, secrets.token_hex(8)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [(b"x-request-id", number.encode()), (b"x-content-type-options", b"nosniff")]
                if self.service.draining:  # so that no client sends its next request where nobody will read it
                    message["headers"] += [(b"connection", b"close")]
            await send(message)

        try:
            if scope["path"] in OPEN_PATHS or self.token is None or has_token(Headers(scope=scope), self.token):
                await self.app(scope, receive, noted)
            else:
                await self._refuse(scope, receive, noted)
        finally:
            seconds = time.monotonic() - start
            route = getattr(scope.get("route"), "path", "none")  # not the path: anybody can ask for any number of paths
            self.service.metrics.request(route, status, seconds)
            fields = {"id": number, "method": scope["method"], "path": scope["path"], "status": status}
            client = scope.get("client")
            LOG.info(
                "request",
                extra={"fields": {**fields, "seconds": round(seconds, 4), "client": client[0] if client else None}},
            )

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = "expected the token of this server as Authorization: Bearer"
        answer = problem(scope["path"], 401, detail, {"WWW-Authenticate": CHALLENGE})
        await answer(scope, receive, send)


def has_token(headers: Headers, token: str) -> bool:
    """Whether a request carries the token: as bearer, or as the password of basic authentication for tools that know
    only that. The time of the comparison says nothing about the token."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64 in ASCII, or no UTF-8 in it
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())
