"""Reads XML files without document types, so that no entity can grow in memory or name another file."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.parsers.expat import errors

from maskrcnn.errors import DataError

# Characters that no XML 1.0 can hold, not even escaped, and the carriage return, which is read as a line feed.
NOT_IN_XML = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_MOST_DEPTH = 64
_CUT = frozenset(  # what expat says of a text that ends too early
    (
        errors.XML_ERROR_NO_ELEMENTS,
        errors.XML_ERROR_UNCLOSED_TOKEN,
        errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
        errors.XML_ERROR_PARTIAL_CHAR,
    )
)


def read_xml(path: Path, expected: str) -> Element:
    """The root element of an XML file.

    Args:
        expected: what the file should contain, for messages, such as "a CVAT XML".

    Raises:
        DataError: the file cannot be read, is not XML (names the line), or declares a document type.
    """
    try:
        return parse_xml(path.read_bytes(), str(path), expected)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None


def parse_xml(data: bytes, name: str, expected: str) -> Element:
    """`read_xml` for the bytes of a file; `name` is for messages."""
    builder, parser, depth = TreeBuilder(), expat.ParserCreate(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise DataError(f"{name}: expected {expected}, found elements more than {_MOST_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*declaration: object) -> None:
        raise DataError(f"{name}: expected {expected} without a document type, found <!DOCTYPE; remove it")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except expat.ExpatError as error:
        todo = "the file may be truncated" if expat.ErrorString(error.code) in _CUT else "correct it there"
        raise DataError(f"{name}: not XML ({error}), expected {expected}; {todo}") from None
