"""Images that a request names instead of bringing them. Only hosts that the user allowed are asked for them."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from maskrcnn import __version__
from maskrcnn.files.fetch import sendable
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.settings import Limits

MOST_REDIRECTS = 3
BLOCK = 1 << 16  # bytes
PORTS = {"http": 80, "https": 443}
HEADER_ENCODING = "iso-8859-1"  # with which http.client reads headers: gives back the bytes that a server sent


class _NoRedirects(HTTPRedirectHandler):
    """Leaves redirects to `ImageSources`, which checks each host and does not hand on the token."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass(frozen=True)
class ImageSources:
    """Fetches images.

    Attributes:
        home: the address to which addresses without a host belong, and the only one that gets the token; or None.
        token: for `Authorization: Token`.
        hosts: further hosts that are allowed, as `name` or `name:port`.
    """

    home: str | None
    token: str | None
    hosts: tuple[str, ...]
    limits: Limits

    def fetch(self, address: str) -> bytes:
        """The content of an address: `data:` with base64, http or https, or a path at `home`.

        Raises:
            RefusalError: 403 for a host that is not allowed, 400 for another kind of address, 413 for a file that is
                too large, 502 for one that cannot be fetched in time.
        """
        if address.startswith("data:"):
            return _embedded(address)
        until = time.monotonic() + self.limits.timeout
        url = _joined(f"{self.home}/" if self.home else "", address)
        for _ in range(1 + MOST_REDIRECTS):
            parts = self._allowed(url)
            try:
                return self._content(url, self._is_home(parts), until)
            except HTTPError as error:
                with error:
                    if error.code not in (301, 302, 303, 307, 308) or "Location" not in error.headers:
                        raise RefusalError(502, f"{parts.netloc} answers {error.code} for the image") from None
                    url = _joined(url, error.headers["Location"], HEADER_ENCODING)
            except (URLError, HTTPException, OSError, ValueError) as error:
                raise RefusalError(502, f"the image cannot be fetched from {parts.netloc} ({error})") from None
        raise RefusalError(502, f"expected up to {MOST_REDIRECTS} redirects to the image, found more")

    def _allowed(self, url: str) -> SplitResult:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise RefusalError(400, "expected an image at http://, https:// or data:, or --label-studio for a path")
        place = f"{parts.hostname}:{parts.port or PORTS[parts.scheme]}"
        if not self._is_home(parts) and not {place, parts.hostname} & set(self.hosts):
            raise RefusalError(403, f"images of {place} are not fetched; allow the host with --image-hosts")
        return parts

    def _is_home(self, parts: SplitResult) -> bool:
        home = urlsplit(self.home or "")
        same_port = (parts.port or PORTS.get(parts.scheme)) == (home.port or PORTS.get(home.scheme))
        return (parts.scheme, parts.hostname) == (home.scheme, home.hostname) and same_port

    def _content(self, url: str, with_token: bool, until: float) -> bytes:
        headers = {"User-Agent": f"maskrcnn/{__version__}"}
        if with_token and self.token:
            headers["Authorization"] = f"Token {self.token}"
        opener = build_opener(_NoRedirects)
        content = bytearray()
        with opener.open(Request(url, headers=headers), timeout=self.limits.timeout) as response:
            while block := response.read1(BLOCK):
                content += block
                if len(content) > self.limits.max_bytes:
                    raise RefusalError(413, f"expected an image of up to {self.limits.max_megabytes:g} MB")
                if time.monotonic() > until:
                    raise TimeoutError("too slow")
            if response.length:  # what Content-Length promised beyond it; None without that header
                raise HTTPException(f"the connection broke, {response.length} bytes are missing")
        return bytes(content)


def _joined(base: str, address: str, encoding: str = "utf-8") -> str:
    """An address seen from another one, well formed."""
    try:
        url = sendable(urljoin(base, address), encoding)
        _ = urlsplit(url).port  # raises for a port that is no number
    except ValueError:
        raise RefusalError(400, "expected the address of an image, found a malformed one") from None
    return url


def _embedded(address: str) -> bytes:
    head, _, data = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RefusalError(400, "expected an image in base64 after data:") from None
