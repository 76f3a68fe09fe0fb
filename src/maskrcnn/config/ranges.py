"""The range of every number in the settings. The type of a field names it: `steps: Count = 90_000`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, get_args, get_type_hints

from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`. Both belong to it, unless it is open."""

    low: float
    high: float
    open: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number lies in it; NaN does not."""
        return bool(self.low < value < self.high if self.open else self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"between {self.low} and {self.high}" if self.open else f"from {self.low} to {self.high}"


LARGEST = 1e38  # of a float32, rounded

Count = Annotated[int, Range(1, 10**9)]  # of steps, samples, boxes
CountOrZero = Annotated[int, Range(0, 10**9)]
FewOrZero = Annotated[int, Range(0, 1000)]  # processes, samples of a cell
Layers = Annotated[int, Range(1, 100)]  # of one head
LayersOrZero = Annotated[int, Range(0, 100)]
Cells = Annotated[int, Range(1, 256)]  # of a RoI feature in each direction
Doublings = Annotated[int, Range(0, 8)]
Channels = Annotated[int, Range(1, 2**14)]
Pixels = Annotated[int, Range(1, 2**16)]  # a side of an image
Seed = Annotated[int, Range(0, 2**63 - 1)]  # what both torch and numpy take
Number = Annotated[float, Range(-LARGEST, LARGEST)]
Positive = Annotated[float, Range(0, LARGEST, open=True)]
NotNegative = Annotated[float, Range(0, LARGEST)]
Factor = Annotated[float, Range(1, 1000)]
Share = Annotated[float, Range(0, 1)]  # also an IoU or a probability
InnerShare = Annotated[float, Range(0, 1, open=True)]
BoxWeights = tuple[Positive, Positive, Positive, Positive]  # factors on the box offsets x, y, w, h


def require_ranges(part: Any, path: str) -> None:
    """Checks that every number in a part of the settings, also inside tuples, lies in its range.

    Args:
        part: a dataclass.
        path: name of the part in the message.

    Raises:
        ConfigError: a value is no number, or lies outside of its range.
    """
    for name, whole, allowed in _ranges(part.__class__):
        kind = Integral if whole else Real
        for value in _flat(getattr(part, name)):
            if isinstance(value, bool) or not isinstance(value, kind) or not allowed.holds(value):
                words = "a whole number" if whole else "a number"
                raise ConfigError(f"{path}.{name} must be {words} {allowed}, found {value!r}")


@cache
def check_seed(seed: int) -> None:
    """Checks the seed of a command.

    Raises:
        ConfigError: it is not one that `Seed` allows.
    """
    allowed = get_args(Seed)[1]
    if not allowed.holds(seed):
        raise ConfigError(f"--seed: expected a whole number {allowed}, found {seed}")


def _ranges(kind: type) -> list[tuple[str, bool, Range]]:
    """Name, whether it is a whole number, and range of each field of a dataclass that has a range."""
    hints = get_type_hints(kind, include_extras=True)
    return [(name, *found) for name, hint in hints.items() if (found := _range(hint)) is not None]


def _range(hint: Any) -> tuple[bool, Range] | None:
    """The first range in a type, also inside a tuple or beside None, and whether its numbers are whole."""
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Range):
            return hint.__origin__ is int, part
    return next((found for inside in get_args(hint) if (found := _range(inside)) is not None), None)


def _flat(value: Any) -> list[Any]:
    """The values inside tuples of tuples, without None."""
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _flat(item)]
    return [] if value is None else [value]
