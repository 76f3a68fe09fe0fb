from __future__ import annotations

import pytest

from maskrcnn.files.addresses import sendable


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://host/bäume.png", "http://host/b%C3%A4ume.png"),
        ("https://host:80/a?d=my folder/ä.png", "https://host:80/a?d=my%20folder/%C3%A4.png"),
        ("http://host/a%20b%2Fc?x=a+b&y=%C3%A4", "http://host/a%20b%2Fc?x=a+b&y=%C3%A4"),
        ("http://bücher.example/ß", "http://bücher.example/%C3%9F"),
        ("http://[::1]:80/a[1](2)~!.png", "http://[::1]:80/a[1](2)~!.png"),
    ],
)
def test_characters_become_codes_once(url: str, sent: str) -> None:
    assert sendable(url) == sent
    assert sendable(sent) == sent


def test_codes_are_of_the_encoding() -> None:
    assert sendable("/ä b", "iso-8859-1") == "/%E4%20b"
    for broken in ("http://[::1", "http://host/\ud800"):
        with pytest.raises(ValueError, match=r"Invalid IPv6|surrogates"):
            sendable(broken)
