"""Merges the objects of tiles that overlap, by ownership and by agreement of masks.

An object is *cut* if its mask touches an inner edge of its tile. It is *at home* if its centroid lies in the part of
the image that its tile owns. The rules:

1. A whole object at home is kept. One that is not at home is kept in two cases: it covers 60 % of a cut one at home, or
   each of two tiles sees the object at home in the other, because their masks differ a little. Then it covers 60 % of
   one that is not at home either, and no object at home covers 60 % of one of these two.
2. A cut object is dropped if a whole one that is kept covers 60 % of it.
3. The other cut objects are united if they are of different tiles and one class, and their masks agree in the strip
   that both tiles share (IoU of .5 or more).
4. A cut object that stays alone is kept if it is at home: nothing else has been found there.
5. Non-maximum suppression on masks removes what is left twice.

Objects without masks are judged by their boxes. Legend: N objects of one tile, M objects of all tiles, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from maskrcnn.ops.rle import crop_to_rle
from maskrcnn.structures.crops import Crop, centroid, crop_box, part_of, shared_pixels, united
from maskrcnn.structures.instances import Instances, join_instances
from maskrcnn.structures.masks import RLE, Masks

EDGE = 1  # pixels: a mask so close to an inner edge touches it
COVERED = 0.6
AGREED = 0.5


class Tile(NamedTuple):
    """A part of an image.

    Attributes:
        box: x1 y1 x2 y2 in pixels of the image.
        owned: x1 y1 x2 y2 of the part that only this tile owns.
        image_hw: height and width of the image.
    """

    box: tuple[int, int, int, int]
    owned: tuple[float, float, float, float]
    image_hw: tuple[int, int]

    @property
    def inner(self) -> np.ndarray:
        """(4,) float64 x1 y1 x2 y2 of the part that does not touch an inner edge; borders of the image do not count."""
        height, width = self.image_hw
        x1, y1, x2, y2 = self.box
        return np.array(
            [
                x1 + EDGE if x1 > 0 else -np.inf,
                y1 + EDGE if y1 > 0 else -np.inf,
                x2 - EDGE if x2 < width else np.inf,
                y2 - EDGE if y2 < height else np.inf,
            ]
        )


@dataclass(frozen=True)
class Piece:
    """The N objects of one tile.

    Attributes:
        tile: where it lies.
        found: the objects in pixels of the tile.
        boxes: (N, 4) int64, tight boxes of the masks in pixels of the image.
        areas: (N,) int64, pixels of the masks.
        cut, home: (N,) bool, see the rules above.
        spanning: number of objects that touch two opposite inner edges.
    """

    tile: Tile
    found: Instances
    boxes: np.ndarray
    areas: np.ndarray
    cut: np.ndarray
    home: np.ndarray
    spanning: int

    def crops(self, numbers: Sequence[int]) -> list[Crop]:
        """The masks of some objects in the image, each cropped to its box. One call for several is faster."""
        left, top = self.tile.box[:2]
        return [(bitmap, (x + left, y + top)) for bitmap, (x, y) in self.found.select(list(numbers)).crops()]


def piece_of(tile: Tile, found: Instances) -> Piece:
    """The objects of a tile with what the rules ask of each alone. One with an empty mask has no home."""
    crops = found.crops()
    start = np.array(tile.box[:2])
    boxes = np.array([crop_box(crop) for crop in crops], np.int64).reshape(-1, 4) + np.tile(start, 2)
    areas = np.array([bitmap.sum(dtype=np.int64) for bitmap, _ in crops], np.int64)
    centroids = np.array([centroid(crop) for crop in crops]).reshape(-1, 2) + start
    owned = np.array(tile.owned)
    home = ((centroids >= owned[:2]) & (centroids < owned[2:])).all(axis=1)
    low, high = boxes[:, :2] <= tile.inner[:2], boxes[:, 2:] >= tile.inner[2:]
    cut = (low | high).any(axis=1) & (areas > 0)
    return Piece(tile, found, boxes, areas, cut, home, int(((low & high).any(axis=1) & cut).sum()))


class _Pairs(NamedTuple):
    """P pairs of overlapping objects of one class in different tiles.

    Attributes:
        first, second: (P,) int64, numbers among the M objects.
        shared: (P,) int64, pixels that both masks cover.
        agreement: (P,) float64, IoU inside the strip that both tiles share.
    """

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray
    agreement: np.ndarray


def merge(pieces: Sequence[Piece], nms_iou: float) -> Instances:
    """The objects of a whole image from those of its tiles, in pixels of the image.

    Args:
        pieces: those of all tiles of the image, one or more.
        nms_iou: objects of one class in different tiles whose masks overlap more are one object.
    """
    if len(pieces) == 1:
        return pieces[0].found
    pairs = _pairs(pieces)
    areas, cut, home = (
        np.concatenate(values) for values in zip(*((p.areas, p.cut, p.home) for p in pieces), strict=True)
    )
    one, other = np.concatenate([pairs[:2], pairs[1::-1]], axis=1)  # each pair in both orders
    covers = np.tile(pairs.shared, 2) >= COVERED * areas[other]
    kept = ~cut & home
    owned = home.copy()
    owned[other[covers & home[one]]] = True
    homeless = ~(owned[one] | owned[other])  # each tile has seen the centroid on the side of the other
    kept[one[covers & ~cut[one] & ((cut & home)[other] | homeless)]] = True
    left = cut.copy()
    left[other[covers & kept[one]]] = False
    groups = _groups(pairs, left)
    kept |= left & home
    kept[[number for group in groups for number in group]] = False
    return _without_doubles(pieces, pairs, kept, groups, nms_iou)


def _pairs(pieces: Sequence[Piece]) -> _Pairs:
    """All pairs. The masks of a tile are decoded while it has neighbours to come."""
    firsts = np.cumsum([0, *(len(piece.found) for piece in pieces)])
    boxes = np.array([piece.tile.box for piece in pieces])
    crops: dict[int, dict[int, Crop]] = {}
    rows: list[tuple[int, int, int, float]] = []
    for number, piece in enumerate(pieces):
        later = boxes[number + 1 :]
        meets = (later[:, :2] < boxes[number, 2:]).all(axis=1) & (later[:, 2:] > boxes[number, :2]).all(axis=1)
        for following in (number + 1 + np.flatnonzero(meets)).tolist():
            strip = _overlap(piece.tile.box, pieces[following].tile.box)
            candidates = _candidates(piece, pieces[following])
            _decode(crops.setdefault(number, {}), piece, {i for i, _ in candidates})
            _decode(crops.setdefault(following, {}), pieces[following], {j for _, j in candidates})
            for i, j in candidates:
                a, b = crops[number][i], crops[following][j]
                shared = shared_pixels(a, b)
                if shared:
                    either = int(part_of(a, strip).sum()) + int(part_of(b, strip).sum()) - shared
                    rows.append((int(firsts[number]) + i, int(firsts[following]) + j, shared, shared / either))
        crops.pop(number, None)
    first, second, shared_of, agreement = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return _Pairs(first.astype(np.int64), second.astype(np.int64), shared_of.astype(np.int64), agreement)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _candidates(a: Piece, b: Piece) -> list[tuple[int, int]]:
    """The pairs of an object of each piece with one class and boxes that overlap."""
    low = np.maximum(a.boxes[:, None, :2], b.boxes[None, :, :2])
    high = np.minimum(a.boxes[:, None, 2:], b.boxes[None, :, 2:])
    meets = (low < high).all(axis=-1) & (a.found.labels[:, None] == b.found.labels[None])
    return [(i, j) for i, j in np.argwhere(meets).tolist()]


def _decode(crops: dict[int, Crop], piece: Piece, numbers: set[int]) -> None:
    """Adds the crops of these objects that are not there yet."""
    if missing := sorted(numbers - crops.keys()):
        crops.update(zip(missing, piece.crops(missing), strict=True))


def _groups(pairs: _Pairs, left: np.ndarray) -> list[list[int]]:
    """The objects to unite: those of `left` that agree, directly or through others. Each group has two or more."""
    agreed = left[pairs.first] & left[pairs.second] & (pairs.agreement >= AGREED)
    group_of: dict[int, list[int]] = {}
    for i, j in zip(pairs.first[agreed].tolist(), pairs.second[agreed].tolist(), strict=True):
        a, b = group_of.setdefault(i, [i]), group_of.setdefault(j, [j])
        if a is not b:
            a.extend(b)
            group_of.update(dict.fromkeys(b, a))
    return list({id(group): group for group in group_of.values()}.values())


def _without_doubles(
    pieces: Sequence[Piece], pairs: _Pairs, kept: np.ndarray, groups: list[list[int]], nms_iou: float
) -> Instances:
    """The objects `kept` and the united `groups`, without those that a better one of another tile mostly covers."""
    firsts = np.cumsum([0, *(len(piece.found) for piece in pieces)])

    def home_of(number: int) -> tuple[Piece, int]:
        place = int(np.searchsorted(firsts, number, side="right")) - 1
        return pieces[place], number - int(firsts[place])

    scores = np.concatenate([piece.found.scores for piece in pieces])
    best = [max(group, key=scores.__getitem__) for group in groups]  # stands for its group
    unions = {
        number: united([piece.crops([i])[0] for piece, i in map(home_of, group)])
        for number, group in zip(best, groups, strict=True)
    }
    final = np.where(kept, np.arange(len(kept)), -1)
    for number, group in zip(best, groups, strict=True):
        final[group] = number

    def crop_of(number: int) -> Crop:
        if number in unions:
            return unions[number]
        piece, i = home_of(number)
        return piece.crops([i])[0]

    doubles: dict[int, set[int]] = {}
    ends = np.unique(np.sort(np.stack([final[pairs.first], final[pairs.second]], axis=1), axis=1), axis=0)
    for i, j in ends[(ends[:, 0] >= 0) & (ends[:, 0] != ends[:, 1])].tolist():
        a, b = crop_of(i), crop_of(j)
        shared = shared_pixels(a, b)
        if shared > nms_iou * (int(a[0].sum()) + int(b[0].sum()) - shared):
            doubles.setdefault(i, set()).add(j)
            doubles.setdefault(j, set()).add(i)
    gone: set[int] = set()
    for number in sorted(doubles, key=lambda number: (-scores[number], number)):
        if number not in gone:
            gone |= doubles[number]
    kept = kept.copy()
    kept[list(gone)] = False
    parts = [
        piece.found.select(kept[first:end]).shifted(piece.tile.box[:2], piece.tile.image_hw)
        for piece, (first, end) in zip(pieces, pairwise(firsts.tolist()), strict=True)
    ]
    for number, group in zip(best, groups, strict=True):
        if number not in gone:
            parts.append(_union(*home_of(number), [home_of(member) for member in group], unions[number]))
    return join_instances(parts)


def _union(piece: Piece, number: int, members: Sequence[tuple[Piece, int]], crop: Crop) -> Instances:
    """One object in the image: the score and the keypoints of object `number`, the mask `crop`, and the box around all
    `members`."""
    tile = piece.tile
    boxes = np.stack([part.found.boxes[i] + np.tile(part.tile.box[:2], 2) for part, i in members])
    best = piece.found.select([number]).shifted(tile.box[:2], tile.image_hw)
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None].astype(np.float32)
    if best.masks is None:
        return replace(best, boxes=around)
    return replace(best, boxes=around, masks=Masks([RLE(tile.image_hw, crop_to_rle(*crop, tile.image_hw))]))
