"""COCO run lengths and their compressed string. Runs go down the columns of the image and begin with background.

The functions work on runs, so that time and memory grow with the number of runs and the size of the object, not with
the size of the image. A span is one foreground run, given as the half-open range of flat pixel numbers x * height + y.

Legend: K spans, R runs, N masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from maskrcnn.errors import DataError

# A character of the COCO API's compressed string is "0" plus five bits of a number, plus 32 if more characters follow.
# Eight characters hold 39 bits, far more than any image needs, and their sums cannot overflow int64.
_FIRST = 48
_MORE = 32
_MOST_CHARACTERS = 8
_CHARACTERS_AT_ONCE = 1 << 18  # decoding a character takes about fifty bytes of memory
_ONE_MORE_CHARACTER_FROM = np.array([1 << (5 * n - 1) for n in range(1, 13)], dtype=np.int64)


def encode_runs(runs: np.ndarray) -> bytes:
    """The COCO compressed string of (R,) run lengths."""
    return encode_many(runs, np.array([len(runs)]))[0]


def encode_many(runs: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """The compressed strings of N masks at once.

    Args:
        runs: (R,) integers, the runs of all masks one after another.
        sizes: (N,) integers, number of runs of each mask.
    """
    values = np.asarray(runs, dtype=np.int64)
    first = np.cumsum(sizes) - sizes
    index = np.arange(len(values)) - np.repeat(first, sizes)
    deltas = values.copy()  # from the fourth run on, the difference to the last run of the same colour
    late = np.flatnonzero(index > 2)
    deltas[late] -= values[late - 2]
    magnitude = deltas ^ (deltas >> 63)
    lengths = 1 + np.searchsorted(_ONE_MORE_CHARACTER_FROM, magnitude, side="right")
    ends = np.cumsum(lengths)
    text = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(int(lengths.max(initial=0))):
        chosen = np.flatnonzero(lengths > place)
        bits = (deltas[chosen] >> (5 * place)) & 31
        text[(ends - lengths)[chosen] + place] = _FIRST + bits + _MORE * (lengths[chosen] > place + 1)
    cuts = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(sizes)])].tolist()
    joined = text.tobytes()
    return [joined[start:stop] for start, stop in pairwise(cuts)]


def decode_runs(counts: bytes) -> np.ndarray:
    """The (R,) int64 run lengths of a COCO compressed string.

    Raises:
        DataError: the string has a character outside the alphabet, an unfinished or overlong number, or a negative run.
    """
    runs, _, sound = decode_many([counts])
    if not sound[0]:
        raise DataError(f"run-length string: {_fault(counts, runs)}")
    return runs


def _fault(counts: bytes, runs: np.ndarray) -> str:
    """Describes what is wrong with a malformed string."""
    codes = np.frombuffer(counts, dtype=np.uint8) - np.uint8(_FIRST)
    if int(codes.max()) >= 2 * _MORE:
        at = int(np.argmax(codes >= 2 * _MORE))
        return f"expected characters from '0' to 'o', found {counts[at : at + 1]!r} at position {at}"
    ends = np.flatnonzero((codes & _MORE) == 0) + 1
    if len(ends) == 0 or ends[-1] < len(codes):
        return f"the last number is unfinished after {len(codes)} characters; cut off?"
    longest = int(np.diff(ends, prepend=0).max())
    if longest > _MOST_CHARACTERS:
        return f"expected numbers of up to {_MOST_CHARACTERS} characters, found {longest}"
    at = int(np.argmax(runs < 0))
    return f"expected runs of 0 or more pixels, found {runs[at]} for run {at}"


def decode_many(strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The run lengths of N compressed strings at once.

    Returns:
        runs: (R,) int64, one string after another; the runs of a malformed string have no meaning.
        sizes: (N,) int64, runs of each string.
        sound: (N,) bool, False for a malformed string.
    """
    # Characters below "0" wrap around and count as too large.
    codes = np.frombuffer(b"".join(strings), dtype=np.uint8) - np.uint8(_FIRST)
    stops = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
    sound = np.ones(len(strings), dtype=np.bool_)
    sizes = np.zeros(len(strings), dtype=np.int64)
    if len(codes) == 0:
        return np.zeros(0, dtype=np.int64), sizes, sound
    last = (codes & _MORE) == 0
    finals = stops[np.diff(stops, prepend=0) > 0] - 1  # the last character of each string that has any
    unfinished = finals[~last[finals]]
    last[finals] = True  # a number never continues in the next string
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    place = np.minimum(np.arange(len(codes)) - np.repeat(starts, lengths), _MOST_CHARACTERS)
    runs = np.add.reduceat((codes & 31).astype(np.int64) << (5 * place), starts)
    # Numbers are two's complement: the highest bit is the sign.
    runs -= ((codes[ends - 1] & 16) != 0).astype(np.int64) << (5 * np.minimum(lengths, _MOST_CHARACTERS))
    sizes = np.diff(np.searchsorted(ends, stops, side="right"), prepend=0)
    _add_up(runs, sizes)
    for broken in (
        np.flatnonzero(codes >= 2 * _MORE),
        unfinished,
        starts[lengths > _MOST_CHARACTERS],
        starts[runs < 0],
    ):
        sound[np.searchsorted(stops, broken, side="right")] = False
    return runs, sizes, sound


def _add_up(runs: np.ndarray, sizes: np.ndarray) -> None:
    """Turns differences into runs, in place. From the fourth run on a string stores the difference to the last run of
    the same colour."""
    rows = (sizes + 1) // 2  # rows of two runs, so that each colour is one column
    first_row = np.cumsum(rows) - rows
    index = np.arange(len(runs)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, column = np.repeat(first_row, sizes) + index // 2, index % 2
    table = np.zeros((int(rows.sum()) + 1, 2), dtype=np.int64)
    table[row + 1, column] = np.where(index == 0, 0, runs)  # sums do not start at the first run
    table = np.cumsum(table, axis=0)
    sums = table[row + 1, column] - table[np.repeat(first_row, sizes), column]
    runs[:] = np.where(index == 0, runs, sums)


def count_pixels(strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of all pixels and of foreground pixels of N compressed strings, (N,) int64 each; -1 if malformed."""
    pixels, foreground = np.full((2, len(strings)), -1, dtype=np.int64)
    lengths = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
    cuts = np.flatnonzero(np.diff(lengths // _CHARACTERS_AT_ONCE)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(strings)]):
        runs, sizes, sound = decode_many(strings[start:stop])
        firsts = np.cumsum(sizes) - sizes
        index = np.arange(len(runs)) - np.repeat(firsts, sizes)
        for sums, values in ((pixels, runs), (foreground, np.where(index % 2, runs, 0))):
            before = np.concatenate([[0], np.cumsum(values)])
            sums[start:stop][sound] = (before[firsts + sizes] - before[firsts])[sound]
    return pixels, foreground


def spans_from_runs(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends, (K,) int64 each, of the foreground runs with at least one pixel."""
    edges = np.cumsum(runs)
    starts, ends = edges[0 : len(edges) - 1 : 2], edges[1::2]
    filled = ends > starts
    return starts[filled], ends[filled]


def runs_from_spans(
    starts: np.ndarray, ends: np.ndarray, owners: np.ndarray, number: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """The runs of several masks of one image from their spans. Spans that touch become one run.

    Args:
        starts, ends: (K,) flat pixel numbers, sorted within each mask, neither overlapping nor empty.
        owners: (K,) int64, the mask of each span, ascending.
        number: N, including masks without spans.
        pixels: number of pixels of the image.

    Returns:
        runs: (R,) int64, one mask after another; only the first run of a mask may be empty.
        sizes: (N,) int64, number of runs of each mask.
    """
    if len(starts):
        apart = (starts[1:] != ends[:-1]) | (owners[1:] != owners[:-1])
        starts = starts[np.concatenate([[True], apart])]
        owners = owners[np.concatenate([[True], apart])]
        ends = ends[np.concatenate([apart, [True]])]
    spans = np.bincount(owners, minlength=number)
    stops = np.cumsum(spans)
    covered = np.zeros(number, dtype=np.int64)  # the end of each mask's last span
    some = spans > 0
    covered[some] = ends[stops[some] - 1]
    tails = (covered < pixels) | ~some
    sizes = 2 * spans + tails
    runs = np.empty(int(sizes.sum()), dtype=np.int64)
    before = np.concatenate([[0], ends[:-1]])[: len(starts)]
    before[(stops - spans)[some]] = 0
    at = 2 * np.arange(len(starts)) + (np.cumsum(tails) - tails)[owners]
    runs[at] = starts - before
    runs[at + 1] = ends - starts
    runs[np.cumsum(sizes)[tails] - 1] = (pixels - covered)[tails]
    return runs, sizes


def area(runs: np.ndarray) -> int:
    """Number of foreground pixels."""
    return int(runs[1::2].sum())


def to_box(runs: np.ndarray, height: int) -> tuple[int, int, int, int]:
    """The tight box x1 y1 x2 y2 in pixel edges of an image of this height; zeros if there is no foreground."""
    starts, ends = spans_from_runs(runs)
    if len(starts) == 0:
        return 0, 0, 0, 0
    first, last = starts // height, (ends - 1) // height
    x1, x2 = int(first[0]), int(last[-1]) + 1
    if (first != last).any():  # a run continues in the next column, through the bottom row and the top row
        return x1, 0, x2, height
    return x1, int((starts % height).min()), x2, int(((ends - 1) % height).max()) + 1


def crop_to_rle(bitmap: np.ndarray, origin_xy: tuple[int, int], image_hw: tuple[int, int]) -> bytes:
    """The compressed string of an image that is background outside a crop.

    Args:
        bitmap: (h, w) bool or integer; foreground is not 0.
        origin_xy: the image pixel of the crop's top left corner.
        image_hw: height and width of the image.

    Raises:
        ValueError: the crop extends beyond the image.
    """
    (x0, y0), (height, width) = origin_xy, image_hw
    h, w = bitmap.shape
    if min(x0, y0) < 0 or x0 + w > width or y0 + h > height:
        raise ValueError(
            f"expected a crop inside an image of {width} x {height}, found {w} x {h} pixels at ({x0}, {y0})"
        )
    padded = np.zeros((w, h + 2), dtype=np.int8)  # so that runs start and end within a column
    padded[:, 1:-1] = (bitmap != 0).T
    column, row = np.nonzero(padded[:, 1:] != padded[:, :-1])
    edges = (x0 + column) * height + y0 + row
    starts, ends = edges[0::2], edges[1::2]
    owners = np.zeros(len(starts), dtype=np.int64)
    return encode_runs(runs_from_spans(starts, ends, owners, 1, height * width)[0])


def rle_to_crop(counts: bytes, image_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The tight crop of a compressed string and the image pixel (x, y) of its top left corner.

    Args:
        counts: a string that fits `image_hw` (`maskrcnn.structures.masks.RLE.from_coco` checks foreign strings).
        image_hw: height and width of the image.

    Returns:
        bitmap: (h, w) uint8 of 0 and 1, C-contiguous; (0, 0) if there is no foreground.
        origin_xy: (0, 0) if there is no foreground.

    Raises:
        DataError: the string is malformed.
    """
    return runs_to_crop(decode_runs(counts), image_hw[0])


def runs_to_crop(runs: np.ndarray, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """`rle_to_crop` for (R,) run lengths of an image of this height."""
    x1, y1, x2, y2 = to_box(runs, height)
    column, top, bottom = column_spans(runs, height)
    top, bottom = top - y1, bottom - y1
    steps = np.zeros((x2 - x1, y2 - y1 + 1), dtype=np.int8)
    steps[column - x1, top] += 1  # no two spans share a start or an end, so that no index occurs twice
    steps[column - x1, bottom] -= 1
    filled = np.cumsum(steps[:, :-1], axis=1, dtype=np.int8)
    return np.ascontiguousarray(filled.T).view(np.uint8), (x1, y1)


def column_spans(runs: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The foreground spans, cut at the ends of columns and sorted by column and row.

    Args:
        runs: (R,) run lengths of an image of this height.

    Returns:
        The column, the first row and the row after the last one of each span, (K,) int64 each.
    """
    return _cut_at_columns(*spans_from_runs(runs), height)


def column_spans_of_many(
    strings: Sequence[bytes], image_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`column_spans` of N compressed strings of one size: the mask of each span, (K,) int64, and what `column_spans`
    returns."""
    runs, sizes, _ = decode_many(strings)
    index = np.arange(len(runs)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    filled = (index % 2 == 1) & (runs > 0)
    ends = np.cumsum(runs)  # as if the images lay side by side
    column, top, bottom = _cut_at_columns((ends - runs)[filled], ends[filled], image_hw[0])
    return column // image_hw[1], column % image_hw[1], top, bottom


def _cut_at_columns(starts: np.ndarray, ends: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first = starts // height
    pieces = (ends - 1) // height - first + 1  # a span over columns a..b gives b - a + 1 pieces
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    column = np.repeat(first, pieces) + number
    top = np.maximum(np.repeat(starts, pieces) - column * height, 0)
    bottom = np.minimum(np.repeat(ends, pieces) - column * height, height)
    return column, top, bottom


def runs_from_column_spans(
    column: np.ndarray, top: np.ndarray, bottom: np.ndarray, image_hw: tuple[int, int]
) -> np.ndarray:
    """The inverse of `column_spans`: (R,) run lengths of an image of this size.

    Args:
        column, top, bottom: (K,) int64 in any order, not overlapping. Parts outside the image are cut off.
    """
    return _from_column_spans(np.zeros_like(column), column, top, bottom, 1, image_hw)[0]


def strings_from_column_spans(
    owner: np.ndarray, column: np.ndarray, top: np.ndarray, bottom: np.ndarray, number: int, image_hw: tuple[int, int]
) -> list[bytes]:
    """The inverse of `column_spans_of_many`: `number` compressed strings of images of this size."""
    return encode_many(*_from_column_spans(owner, column, top, bottom, number, image_hw))


def _from_column_spans(
    owner: np.ndarray, column: np.ndarray, top: np.ndarray, bottom: np.ndarray, number: int, image_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    height, width = image_hw
    top, bottom = np.maximum(top, 0), np.minimum(bottom, height)
    inside = np.flatnonzero((top < bottom) & (column >= 0) & (column < width))
    order = inside[np.argsort((owner * width + column)[inside] * height + top[inside], kind="stable")]
    base = column[order] * height
    return runs_from_spans(base + top[order], base + bottom[order], owner[order], number, height * width)
