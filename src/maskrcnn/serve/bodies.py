"""Bodies of requests: read within limits of size, memory and time, and taken apart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request
from starlette.requests import ClientDisconnect

from maskrcnn.serve.forms import parse_form
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.settings import Limits

BODIES_AT_ONCE = 8  # bodies of the largest size that may arrive at the same time; smaller ones may be more


@dataclass
class Intake:
    """Reads bodies. `held` counts the bytes of all that are arriving, so that many senders cannot fill the memory."""

    limits: Limits
    held: int = field(default=0, init=False)

    async def read(self, request: Request) -> bytes:
        """The whole body of a request.

        Raises:
            RefusalError: 413 for a body that is too large, 503 when too much is arriving, 408 when it takes too long,
                400 when the client ends within it.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limits.max_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for part in request.stream():
                    self.held += len(part)
                    body += part
                    if len(body) > self.limits.max_bytes:
                        raise self._too_large()
                    if self.held > BODIES_AT_ONCE * self.limits.max_bytes:
                        raise RefusalError(503, "too many requests are arriving; try again", {"Retry-After": "1"})
        except TimeoutError:
            raise RefusalError(408, f"the request did not arrive within {self.limits.timeout:g} s") from None
        except ClientDisconnect:
            raise RefusalError(400, "the connection ended within the request") from None
        finally:
            self.held -= len(body)
        return bytes(body)

    def _too_large(self) -> RefusalError:
        return RefusalError(413, f"expected a request of up to {self.limits.max_megabytes:g} MB, found a larger one")


def image_and_fields(content_type: str, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The image in a body and the other fields beside it.

    The body is the image itself, or a form (multipart/form-data) with one file and any fields.

    Raises:
        RefusalError: 400 for an empty body, and for a form that is malformed or has another number of files.
    """
    if not body:
        raise RefusalError(400, "expected an image, found an empty request")
    if not content_type.lower().startswith("multipart/"):
        return body, {}
    parts = parse_form(content_type, body)
    files = [part for part in parts if part.is_file]
    if len(files) != 1:
        raise RefusalError(400, f"expected a form with one file, the image, found {len(files)}")
    fields = {part.name: part.data.decode("utf-8", "replace") for part in parts if not part.is_file}
    return bytes(files[0].data), fields
