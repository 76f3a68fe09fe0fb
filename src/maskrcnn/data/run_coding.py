"""How a table of run lengths counts pixels, found from the runs themselves.

Within an object, runs of neighbouring columns begin about one image height apart, and runs of neighbouring rows about
one width. So the difference that most successive starts have tells the order, unless the image is square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.regions import Order
from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE

_ROWS = 2000  # that are looked at
_MANY = 30  # steps, from which a distance is no accident
_SLANT = 3  # pixels by which the runs of a slanted outline shift from column to column


@dataclass(frozen=True)
class RunCoding:
    """How the numbers of a file count pixels.

    Attributes:
        order: whether pixels run down the columns or right along the rows.
        relative: whether each start counts from the end of the last run, and the first from 0.
        first: the number of the first pixel, 0 or 1; 0 if relative.
    """

    order: Order
    relative: bool
    first: int

    def spans(self, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts counted from 0 and lengths, (K,) each, of (2 K,) numbers start, length, start, length, ..."""
        starts, lengths = runs[0::2], runs[1::2]
        if self.relative:
            return np.cumsum(starts) + np.cumsum(lengths) - lengths, lengths
        return starts - self.first, lengths


def encoded_pixels(mask: RLE) -> str:
    """The runs of a mask: start and length in turns, from pixel 1, down the columns."""
    starts, lengths = mask.column_major_runs()
    return " ".join(map(str, np.stack([starts + 1, lengths], axis=1).ravel().tolist()))


def is_relative(rows: Sequence[np.ndarray]) -> bool:
    """Whether the starts of most objects with three or more runs do not increase."""
    long = [runs for runs in rows[:_ROWS] if len(runs) >= 6]
    return 2 * sum(bool((np.diff(runs[0::2]) < 0).any()) for runs in long) > len(long)


def steps(runs: np.ndarray, relative: bool) -> np.ndarray:
    """(K - 1,) differences of the starts of successive runs."""
    return runs[2::2] + runs[1:-1:2] if relative else np.diff(runs[0::2])


def order_of(rows: Sequence[np.ndarray], sizes: Sequence[Size], relative: bool) -> tuple[int, int]:
    """The number of steps that speak for pixels down the columns, and for pixels right along the rows."""
    down = right = 0
    for runs, (height, width) in zip(rows[:_ROWS], sizes, strict=False):
        slant = min(_SLANT, (abs(height - width) - 1) // 2)  # negative for a square image, which tells nothing
        found = steps(runs, relative)
        down += int((np.abs(found - height) <= slant).sum())
        right += int((np.abs(found - width) <= slant).sum())
    return down, right


def commonest_step(rows: Sequence[np.ndarray], relative: bool) -> int:
    """The commonest difference of successive starts: the height of the images, or their width. 0 if there is none."""
    found = [steps(runs, relative) for runs in rows[:_ROWS]]
    values, counts = np.unique(np.concatenate([*found, np.zeros(0, dtype=np.int64)]), return_counts=True)
    return int(values[np.argmax(counts)]) if len(values) else 0


def _check_sizes(rows: Sequence[np.ndarray], sizes: Sequence[Size], relative: bool) -> None:
    """Refuses runs that repeat at a distance which is neither height nor width of their images."""
    down, right = order_of(rows, sizes, relative)
    found = np.concatenate([np.zeros(0, dtype=np.int64), *(steps(runs, relative) for runs in rows[:_ROWS])])
    side = commonest_step(rows, relative)
    often = int((np.abs(found - side) <= _SLANT).sum())
    square = any(height == width == side for height, width in sizes[:_ROWS])
    if often >= _MANY and often > len(found) / 2 and down + right < often / 10 and not square:
        height, width = sizes[0]
        raise DataError(
            f"expected run lengths for the images ({width} x {height} pixels), found runs that repeat every {side} "
            "pixels, as in images of that height or width; use the images of the size that was annotated"
        )


def find_coding(
    rows: Sequence[np.ndarray], sizes: Sequence[Size], order: Order | None, usual: Order
) -> tuple[RunCoding, str]:
    """How a file counts pixels, and a sentence if the runs leave the order open or speak against it.

    Args:
        rows: the numbers of each object.
        sizes: height and width of the image of each object.
        order: the order that a person gave.
        usual: the order of the file's layout, for images that do not show it.

    Raises:
        DataError: the runs belong to images of another size.
    """
    relative = is_relative(rows)
    _check_sizes(rows, sizes, relative)
    first = 0 if relative or any(len(runs) and runs[0] == 0 for runs in rows) else 1
    down, right = order_of(rows, sizes, relative)
    shown: Order | None = None if down == right else "down" if down > right else "right"
    note = ""
    if order is not None and shown not in (None, order):
        note = f"read with --order {order}, although the runs look like --order {shown}"
    elif order is None and shown is None and rows:
        other = "right" if usual == "down" else "down"
        cause = "square images" if all(height == width for height, width in sizes) else "so few runs"
        note = f"{cause} do not show the order of pixels: read with --order {usual}; the other is --order {other}"
    return RunCoding(order or shown or usual, relative, first), note
