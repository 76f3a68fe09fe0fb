"""What keeps a file from being read as text."""

from __future__ import annotations

import pytest

from maskrcnn.files.text_file import text_fault


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        ("image,mask".encode("utf-16"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-16-be"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-16-le"), "its text is UTF-16; save it as UTF-8"),
        ("image,mask".encode("utf-8-sig"), ""),
        (b"i", ""),
    ],
)
def test_what_is_no_text_is_named(content: bytes, said: str) -> None:
    assert text_fault(content).startswith(said)
    assert bool(text_fault(content)) == bool(said)
