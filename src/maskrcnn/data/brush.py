"""Label Studio's brush masks: the bits of thi.ng's rle-pack over the values of an RGBA picture.

The stream holds the number of values (32 bits), the bits of a value less one (5), and the bits of four lengths less
one (4 x 4). Then come blocks: one bit says whether one value is repeated, two bits choose the length's bits, then the
length less one, and one value or as many as the length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import short

_OPAQUE = 127  # edges of a brush are soft; alpha above this is foreground
_LENGTHS = (3, 4, 8, 16)  # bits of the lengths that Label Studio writes
_LONGEST = 1 << _LENGTHS[-1]
_CUT_OFF = "the brush mask ends too early; the file may be cut off"


def brush_mask(codes: Any, size: Size) -> np.ndarray:
    """The (H, W) bool mask of a list of bytes.

    Args:
        size: height and width of the image.

    Raises:
        DataError: the list is malformed, or is not of four values for each pixel of the image.
    """
    try:
        packed = np.array(codes, dtype=np.uint8)
    except (TypeError, ValueError, OverflowError):
        packed = np.zeros((0, 0), dtype=np.uint8)
    if packed.ndim != 1:
        raise DataError(f"expected rle as a list of bytes, found {short(codes)}")
    bits = np.unpackbits(packed)
    total, word = _integer(bits, 0, 32), _integer(bits, 32, 5) + 1
    lengths = [_integer(bits, 37 + 4 * i, 4) + 1 for i in range(4)]
    expected = 4 * size[0] * size[1]
    if total != expected or word != 8:
        raise DataError(f"expected a brush mask of {expected} bytes (RGBA), found {total} values of {word} bits")
    values = np.empty(total, dtype=np.uint8)
    at, filled = 53, 0
    while filled < total:
        head = _integer(bits, at, 3)
        width = lengths[head & 3]
        count = min(_integer(bits, at + 3, width) + 1, total - filled)
        at += 3 + width
        own = 1 if head & 4 else count
        found = bits[at : at + 8 * own]
        if len(found) < 8 * own:
            raise DataError(_CUT_OFF)
        values[filled : filled + count] = np.packbits(found)
        at, filled = at + 8 * own, filled + count
    return values[3::4].reshape(size) > _OPAQUE


def brush_codes(mask: RLE) -> list[int]:
    """The inverse of `brush_mask`: a list of bytes. Each run has its own block, with the longest kind of length."""
    starts, lengths = mask.transposed().column_major_runs()  # along the rows
    edges = np.concatenate([[0], np.stack([starts, starts + lengths], axis=1).ravel(), [mask.size[0] * mask.size[1]]])
    values, runs = np.arange(len(edges) - 1) % 2 * 255, np.diff(edges) * 4  # background first
    blocks = -(-runs // _LONGEST)
    values, firsts = np.repeat(values, blocks), np.repeat(np.cumsum(blocks) - blocks, blocks)
    lengths = np.minimum(np.repeat(runs, blocks) - (np.arange(len(values)) - firsts) * _LONGEST, _LONGEST)
    header = f"{4 * mask.size[0] * mask.size[1]:032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in _LENGTHS)
    numbers = (0b111 << 24) | ((lengths - 1) << 8) | values  # a repeated value, and the last of the lengths
    bits = (numbers[:, None] >> np.arange(26, -1, -1)) & 1
    first = np.frombuffer(header.encode(), dtype=np.uint8) - ord("0")
    codes: list[int] = np.packbits(np.concatenate([first, bits.astype(np.uint8).ravel()])).tolist()
    return codes


def _integer(bits: np.ndarray, at: int, width: int) -> int:
    """The number in bits `at` to `at + width`, the highest first."""
    if at + width > len(bits):
        raise DataError(_CUT_OFF)
    value = 0
    for bit in bits[at : at + width].tolist():
        value = value << 1 | bit
    return value
