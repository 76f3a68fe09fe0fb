"""Runs of foreground pixels, down the columns of an image."""

from __future__ import annotations

import numpy as np

from maskrcnn.ops.rle import decode_runs


def runs_of(counts: bytes) -> list[tuple[int, int]]:
    """Half-open ranges of the foreground pixels of a COCO string, joined across columns."""
    edges = np.cumsum(decode_runs(counts))
    return [(int(a), int(b)) for a, b in zip(edges[0::2], edges[1::2], strict=False) if a < b]


def joined(spans: np.ndarray) -> list[tuple[int, int]]:
    """The runs (K, 2) of an exported graph, which end at the edge of the image, as `runs_of` gives them."""
    found: list[tuple[int, int]] = []
    for start, stop in spans.tolist():
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return found
