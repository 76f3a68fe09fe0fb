"""Finds pictures that are there more than once: the same file, and the same picture resized or compressed again.

Legend: N pictures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.data.pictures import in_threads
from maskrcnn.errors import ImageError, counted
from maskrcnn.structures.dataset import Dataset

_IN_THE_MIDDLE = 4096  # bytes that are compared before a whole file is read
_WAVES_APART = 10  # of 64 bits that may differ; unrelated photographs differ in about 32
_GREYS_APART = 3.0  # mean difference of the thumbnails, of 255
_FLAT = 4.0  # standard deviation of a thumbnail below which pictures cannot be told apart
_ROWS = 256  # pictures that are compared with all others at once
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


@dataclass(frozen=True)
class Pictures:
    """N pictures of one or two data sets.

    Attributes:
        paths: their files.
        sides: (N,) int64, the split of each.
        signatures: N.
    """

    paths: Sequence[Path]
    sides: np.ndarray
    signatures: Sequence[Signature]


def equal_pictures(pictures: Pictures) -> Iterator[tuple[int, int, bool]]:
    """Pairs (first, later) of equal pictures, and whether their files are equal. A later one is in one pair only for
    each split."""
    # Empty pictures are equal without being the same.
    read = np.array([len(set(signature.thumbnail)) > 1 for signature in pictures.signatures], dtype=bool)
    seen: dict[tuple[bytes, int], int] = {}
    done: set[tuple[int, int]] = set()
    for number in np.flatnonzero(read).tolist():
        digest = pictures.signatures[number].digest
        for side in np.unique(pictures.sides).tolist():
            if (first := seen.get((digest, side))) is not None:
                done.add((number, side))
                yield first, number, True
        seen.setdefault((digest, int(pictures.sides[number])), number)
    for first, number in _similar(pictures.signatures, read):
        side = int(pictures.sides[first])
        if (number, side) not in done:
            done.add((number, side))
            yield first, number, False


def _similar(signatures: Sequence[Signature], read: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (first, later) of pictures with nearly the same waves and thumbnails, by the later one."""
    places = np.flatnonzero(read)
    waves = np.array([signatures[i].waves for i in places.tolist()], dtype=np.uint64)
    greys = np.frombuffer(b"".join(signatures[i].thumbnail for i in places.tolist()), dtype=np.uint8)
    greys = greys.reshape(len(places), THUMBNAIL**2).astype(np.float32)
    spread = greys.std(axis=1)
    for start in range(0, len(places), _ROWS):
        block = slice(start, start + _ROWS)
        earlier = waves[: start + _ROWS]
        later, first = np.nonzero(np.bitwise_count(waves[block, None] ^ earlier) <= _WAVES_APART)
        later += start
        kept = (first < later) & (np.minimum(spread[first], spread[later]) > _FLAT)
        first, later = first[kept], later[kept]
        near = np.abs(greys[first] - greys[later]).mean(axis=1) <= _GREYS_APART
        yield from zip(places[first[near]].tolist(), places[later[near]].tolist(), strict=True)


def copies(dataset: Dataset) -> list[tuple[int, int]]:
    """Pairs of images, by number, whose pictures are equal or nearly so. Every image is read."""

    def look(number: int) -> Signature:
        try:
            return signature(dataset.records[number].path, dataset.read(number))
        except ImageError:
            return UNREAD

    signatures = in_threads(look, range(len(dataset)))
    paths = [Path(path) for path in dataset.records.paths]
    found = equal_pictures(Pictures(paths, np.zeros(len(dataset), dtype=np.int64), signatures))
    return [(first, later) for first, later, _ in found]


def shared_files(training: Dataset, validation: Dataset) -> list[str]:
    """One sentence if images of the validation data are trained on: the same file, or a copy with the same bytes."""
    found = also_in(training.records.paths, validation.records.paths)
    if not found:
        return []
    return [
        f"{len(found)} of {counted(len(validation), 'validation image')} are also trained on, first: {found[0]}; the "
        "figures will be better than on new images; take them out of one of the data sets: maskrcnn data check "
        f"{training.path} --val {validation.path} lists them"
    ]


def also_in(known: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Those of the paths that are also among the known ones: the same file, or a copy with the same bytes.

    A file is read whole only if one on the other side has its size and the same bytes in the middle. Uncompressed
    pictures all have one size, and reading a large data set would take minutes.
    """
    paths = list(paths)
    known = sorted(set(known))
    shared = set(known) & set(paths)
    others = sorted(set(paths) - shared)
    for look in (_size, _middle, _digest):
        of_known, of_others = in_threads(look, known), in_threads(look, others)
        common = (set(of_known) & set(of_others)) - {None}
        known = [path for path, own in zip(known, of_known, strict=True) if own in common]
        others = [path for path, own in zip(others, of_others, strict=True) if own in common]
    shared.update(others)
    return [path for path in paths if path in shared]


def _size(path: str) -> int | None:
    with suppress(OSError):
        return os.path.getsize(path)
    return None


def _middle(path: str) -> bytes | None:
    """Some bytes from the middle of a file, where a picture has pixels and no header; None if it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(os.path.getsize(path) // 2)
        return file.read(_IN_THE_MIDDLE)
    return None


def _digest(path: Path | str) -> bytes:
    """A hash of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


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
    return Signature(_digest(path), bits, thumbnail.tobytes())


@cache
def _cosines() -> np.ndarray:
    """(9, 32) float64: the lowest waves of a cosine transform."""
    wave, place = np.mgrid[:9, :_WAVES]
    cosines: np.ndarray = np.cos(np.pi * wave * (2 * place + 1) / (2 * _WAVES))
    return cosines
