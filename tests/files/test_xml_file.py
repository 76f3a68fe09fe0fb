"""XML files: what is read, and what is refused before it can grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.errors import DataError
from maskrcnn.files.xml_file import read_xml


def test_elements_attributes_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<?xml version="1.0" encoding="utf-8"?><a b="é"><c>text &amp; more</c></a>', encoding="utf-8")
    root = read_xml(path, "a list")
    assert (root.tag, root.get("b"), root.findtext("c")) == ("a", "é", "text & more")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.xml: cannot be read \(No such file or directory\), expected a list"),
        ("<a><b></a>", r"a\.xml: not XML \(mismatched tag: line 1, column 8\), expected a list; correct it there"),
        ("", r"a\.xml: not XML \(no element found.*; the file may be truncated"),
        ("<a><b x='", r"a\.xml: not XML \(unclosed token: line 1, column 3\).*; the file may be truncated"),
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>', "found <!DOCTYPE; remove it"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "found <!DOCTYPE; remove it"),
        ("<a>" * 1000, "found elements more than 64 deep"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.xml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_xml(path, "a list")
