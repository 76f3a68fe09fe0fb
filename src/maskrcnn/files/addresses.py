"""Addresses as HTTP wants them."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

_KEPT = "%/:?#[]@!$&'()*+,;=~"  # have a meaning in addresses; with %, because parts may be codes already


def sendable(url: str, encoding: str = "utf-8") -> str:
    """An address in the characters that HTTP allows: others in its path and query, such as umlauts and spaces, become
    percent codes, as browsers send them. The host stays as it is.

    Args:
        encoding: of the codes.

    Raises:
        ValueError: the address is malformed, or has half a surrogate pair.
    """
    parts = urlsplit(url)
    path, query = (quote(part, _KEPT, encoding) for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query).geturl()
