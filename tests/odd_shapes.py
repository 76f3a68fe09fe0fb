"""Tensors of shapes that no network has: opening them gives a model or an error of ours, never another error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice

import torch
from torch import Tensor

from maskrcnn.errors import MaskRCNNError

SHAPES: list[tuple[int, ...]] = [(), (0,), (7,), (3, 0), (5, 1), (1, 1, 1, 1, 1), (0, 1 << 40), (2, 3, 0, 1 << 40)]
Tensors = Mapping[str, Tensor]


def variants(tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """A description and the tensors with one of each kind of name missing, or in another shape."""
    shapes = cycle(SHAPES)
    for name in {re.sub(r"\d+", "0", name): name for name in reversed(list(tensors))}.values():
        shape = next(shapes)
        yield f"{name} of shape {shape}", {**tensors, name: torch.zeros(shape, dtype=tensors[name].dtype)}
        yield f"without {name}", {other: value for other, value in tensors.items() if other != name}


def check_odd_shapes(opened: Callable[[Tensors], object], tensors: Tensors, every: int = 19) -> None:
    """Fails if `opened` raises another error than ours for one of the `variants`, of which it tries a part."""
    for what, changed in islice(variants(tensors), 0, None, every):
        try:
            opened(changed)
        except MaskRCNNError:
            pass
        except Exception as error:
            raise AssertionError(what) from error
