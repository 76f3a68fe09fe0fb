"""Finds pictures that are there more than once: the same file, and the same picture resized or compressed again.

Legend: N pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from maskrcnn.data.editing.split import ROBOFLOW
from maskrcnn.doctor.findings import Finding
from maskrcnn.doctor.pictures import THUMBNAIL, Signature
from maskrcnn.structures.dataset import Dataset

_WAVES_APART = 10  # of 64 bits that may differ; unrelated photographs differ in about 32
_GREYS_APART = 3.0  # mean difference of the thumbnails, of 255
_FLAT = 4.0  # standard deviation of a thumbnail below which pictures cannot be told apart
_ROWS = 256  # pictures that are compared with all others at once


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


def copied_images(dataset: Dataset, pictures: Pictures, names: Sequence[str]) -> Iterator[Finding]:
    """Images of a data set that are equal to another of it, or to one of another split.

    Args:
        pictures: the images of the data set, and then those of another one.
        names: of the splits.
    """
    for first, later, exact in equal_pictures(pictures):
        if later < len(dataset) and pictures.paths[first] == pictures.paths[later]:
            continue  # one file in two entries of this data set, which `repeated_files` names
        mine, other = (later, first) if later < len(dataset) else (first, later)
        path, sides = pictures.paths[other], pictures.sides[[mine, other]].tolist()
        how = "the same file as" if exact else "the same picture as"
        if sides[0] != sides[1]:
            what = f"{how} {path} in {names[sides[1]]}"
            yield Finding("shared-image", what, "hurts", mine, other=path)
        elif mine < len(dataset):
            count = dataset.records.counts
            differ = other < len(dataset) and count[mine] != count[other]
            what = f"{how} {path.name}" + (", with another number of annotations" if differ else "")
            kind = "duplicate-image" if exact else "similar-image"
            yield Finding(kind, what, "hurts" if differ else "doubt", mine, other=path)


def shared_photographs(dataset: Dataset, pictures: Pictures, names: Sequence[str]) -> Iterator[Finding]:
    """Versions of one photograph, by Roboflow's names, in more than one split."""
    groups: dict[str, dict[int, int]] = defaultdict(dict)
    for number, path in enumerate(pictures.paths):
        if ROBOFLOW.search(path.stem):
            groups[ROBOFLOW.sub("", path.stem)].setdefault(int(pictures.sides[number]), number)
    for name, by_side in groups.items():
        for a, b in combinations(by_side.values(), 2):
            if a < len(dataset):
                what = f"{name} also has a version in {names[int(pictures.sides[b])]}: {pictures.paths[b].name}"
                yield Finding("shared-photograph", what, "hurts", a, other=pictures.paths[b])
