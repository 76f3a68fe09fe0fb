"""Reads image files, names what is wrong with them, and makes signatures by which equal pictures are found."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.doctor.findings import Finding, Severity
from maskrcnn.errors import ImageError
from maskrcnn.files.images import image_size, orientation
from maskrcnn.structures.dataset import Dataset

THUMBNAIL = 16  # pixels of the side of the small picture that is compared
_WAVES = 32  # pixels of the side of the picture whose waves are hashed


class Signature(NamedTuple):
    """What is compared of a picture.

    Attributes:
        digest: of the bytes of the file; empty if the picture cannot be read.
        waves: 64 bits, the signs of the lowest frequencies. Resizing and compression change few of them.
        thumbnail: THUMBNAIL x THUMBNAIL grey values, row by row.
    """

    digest: bytes
    waves: int
    thumbnail: bytes


UNREAD = Signature(b"", 0, bytes(THUMBNAIL**2))


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


def signature(path: Path, pixels: np.ndarray) -> Signature:
    """The signature of an image file with these (H, W, C) uint8 pixels."""
    grey = Image.fromarray(np.ascontiguousarray(pixels[..., :3]) if pixels.shape[2] >= 3 else pixels[..., 0]).convert(
        "L"
    )
    small = np.asarray(grey.resize((_WAVES, _WAVES), Image.Resampling.BOX), dtype=np.float64)
    transform = _cosines()
    waves = (transform @ small @ transform.T).ravel()[1:65]
    bits = int("".join("1" if wave > np.median(waves) else "0" for wave in waves), 2)
    block = _WAVES // THUMBNAIL
    thumbnail = small.reshape(THUMBNAIL, block, THUMBNAIL, block).mean(axis=(1, 3)).astype(np.uint8)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    return Signature(digest, bits, thumbnail.tobytes())


@cache
def _cosines() -> np.ndarray:
    """(9, 32) float64: the lowest waves of a cosine transform."""
    wave, place = np.mgrid[:9, :_WAVES]
    cosines: np.ndarray = np.cos(np.pi * wave * (2 * place + 1) / (2 * _WAVES))
    return cosines
