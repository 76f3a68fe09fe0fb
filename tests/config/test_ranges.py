"""Every number in the settings has a range, and a value outside of it is refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest

from maskrcnn.config import (
    BoxHeadConfig,
    Config,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PointRendConfig,
    TrainConfig,
)
from maskrcnn.config.ranges import Range
from maskrcnn.errors import ConfigError

WHOLE = replace(
    Config(),
    model=replace(
        Config().model,
        keypoint_head=KeypointHeadConfig(),
        mask_head=MaskHeadConfig(point_rend=PointRendConfig()),
    ),
)


def parts(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every part of the settings, with its name."""
    yield path, value
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from parts(inner, f"{path}.{field.name}".lstrip("."))


def numbers(hint: Any) -> list[tuple[type, Range | None]]:
    """The numbers in the type of a field, each with its range."""
    ranges = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)]
    if ranges:
        return [(hint.__origin__, ranges[0])]
    if hint in (int, float):
        return [(hint, None)]
    return [found for inner in get_args(hint) for found in numbers(inner)]


def instead(hint: Any, value: Any) -> Any:
    """A value of the type of a field with `value` as one of its numbers."""
    if numbers(hint) and (hasattr(hint, "__metadata__") or hint in (int, float)):
        return value
    if getattr(hint, "__origin__", None) is tuple:
        return (instead(get_args(hint)[0], value),)
    return next(instead(inner, value) for inner in get_args(hint) if numbers(inner))


CASES = [
    (path, part, name, hint)
    for path, part in parts(WHOLE)
    for name, hint in get_type_hints(type(part), include_extras=True).items()
    if numbers(hint) and not is_dataclass(hint)
]


def test_every_number_has_a_range() -> None:
    assert len(CASES) > 70
    without = [f"{path}.{name}" for path, _, name, hint in CASES for _, allowed in numbers(hint) if allowed is None]
    assert without == []


@pytest.mark.parametrize(("path", "part", "name", "hint"), CASES, ids=[f"{path}.{name}" for path, _, name, _ in CASES])
def test_a_value_outside_of_its_range_is_refused_by_name(path: str, part: Any, name: str, hint: Any) -> None:
    kind, allowed = numbers(hint)[0]
    assert allowed is not None
    outside: list[Any] = [
        allowed.low - abs(allowed.low) - 1,
        allowed.high * 2 + 1,
        math.nan,
        math.inf,
        -math.inf,
        "1",
        True,
        b"1",
        1j,
    ]
    outside += [0.5] if kind is int else []
    outside += [allowed.low, allowed.high] if allowed.open else []
    for value in outside:
        with pytest.raises(ConfigError) as caught:
            replace(part, **{name: instead(hint, value)})
        kind_in_words = "a whole number" if kind is int else "a number"
        assert str(caught.value) == f"{path}.{name} must be {kind_in_words} {allowed}, found {value!r}"


def test_both_ends_of_a_range_belong_to_it() -> None:
    assert TrainConfig(workers=0, warmup_steps=0, steps=1, seed=2**63 - 1, weight_decay=0.0).seed == 2**63 - 1
    assert BoxHeadConfig(positive_iou=1, layers=0, resolution=256).resolution == 256


def test_every_number_of_a_tuple_counts() -> None:
    with pytest.raises(ConfigError, match=r"image\.std must be a number between 0 and 1e\+38, found 0\.0"):
        ImageConfig(std=(1.0, 1.0, 0.0))
    with pytest.raises(ConfigError, match=r"cascade_weights must be a number between 0 and .*, found -5"):
        BoxHeadConfig(
            class_agnostic=True, cascade_ious=(0.6, 0.7), cascade_weights=((20, 20, 10, 10), (30, 30, 15, -5))
        )
