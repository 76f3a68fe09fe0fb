"""Reads tables in text files: CSV with commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from maskrcnn.errors import DataError

_BEGINNING_BYTES = 1 << 16


def text_fault(content: bytes) -> str:
    """Why the beginning of a file cannot be used as text, and what to do; empty if it may be."""
    if not content.strip():
        return "the file is empty; write it again"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or content[:2].count(0) == 1:
        return "its text is UTF-16; save it as UTF-8"
    return ""


def csv_beginning(path: Path) -> list[list[str]]:
    """The header and the first rows of a table, whose last cell may be cut off; an empty list if there is no table."""
    try:
        with path.open("rb") as file:
            content = file.read(_BEGINNING_BYTES)
        lines = [] if text_fault(content) else content.decode("utf-8-sig", errors="replace").splitlines()
        return [[cell.strip() for cell in cells] for cells in csv.reader(lines, delimiter=_delimiter(lines))]
    except (OSError, csv.Error):
        return []


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The header and the rows of a table, each with the number of its last line, without the spaces around cells.

    Raises:
        DataError: the file cannot be read, or is no table in UTF-8.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected a CSV") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = text_fault(content) or f"found another character at byte {error.start} in line {line}; save it as UTF-8"
        raise DataError(f"{path}: expected a CSV in UTF-8, {found}") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))  # no cell is longer than its file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:_BEGINNING_BYTES].splitlines()))
    try:
        for cells in reader:
            if any(cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: expected a row of a CSV ({error})") from None


def _delimiter(lines: list[str]) -> str:
    header = lines[0] if lines else ""
    return max(",;\t", key=header.count)
