"""Reads image files, and names what is wrong with them."""

from __future__ import annotations

from pathlib import Path

from maskrcnn.data.editing.copies import UNREAD, Signature, signature
from maskrcnn.doctor.findings import Finding, Severity
from maskrcnn.errors import ImageError
from maskrcnn.files.images import image_size, orientation
from maskrcnn.structures.dataset import Dataset


def look(dataset: Dataset, number: int) -> tuple[list[Finding], Signature]:
    """The faults of one image file, and its signature."""
    record, found = dataset.records[number], []

    def add(kind: str, what: str, severity: Severity = "doubt") -> None:
        found.append(Finding(kind, what, severity, number))

    if record.fault:
        add("missing-image", record.fault)
        return found, UNREAD
    try:
        pixels = dataset.read(number, lambda text: add("pages", text.partition(": ")[2]))
    except ImageError as error:
        kind = _kind_of(record.path, record.size)
        add(kind, str(error).removeprefix(f"{record.path}: "))
        return found, UNREAD
    turn = orientation(record.path)
    if turn in (2, 3, 4) or (turn > 4 and record.height == record.width):
        add("exif-turn", f"EXIF orientation {turn}")
    return found, signature(record.path, pixels)


def _kind_of(path: Path, expected_hw: tuple[int, int]) -> str:
    """The kind of fault of an image that `Dataset.read` refuses."""
    try:
        size = image_size(path)
    except ImageError:
        return "unreadable-image"
    if size == expected_hw:
        return "unreadable-image"
    return "turned-image" if size == expected_hw[::-1] else "other-size"
