"""What other programs are told about a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from maskrcnn.training.reports.reporters import Reporter, reporting
from small_data import small_config


def test_what_has_begun_ends_whatever_happens() -> None:
    calls: list[str] = []

    def one(name: str, error: type[Exception] | None = None) -> Reporter:
        def begin(*given: Any) -> None:
            if error is not None:
                raise error
            calls.append(f"begin {name}")

        return cast(Reporter, SimpleNamespace(begin=begin, end=lambda: calls.append(f"end {name}")))

    with pytest.raises(KeyError), reporting([one("a"), one("b", KeyError)], small_config(), 0):
        calls.append("never")
    with pytest.raises(ValueError, match="inside"), reporting([one("c")], small_config(), 0):
        raise ValueError("inside")
    assert calls == ["begin a", "end a", "begin c", "end c"]


def test_one_that_cannot_end_leaves_the_others_their_end() -> None:
    ended: list[str] = []

    def broken() -> None:
        ended.append("broken")
        raise OSError("gone")

    ends = (lambda: ended.append("first"), broken, lambda: ended.append("last"))
    reporters = [cast(Reporter, SimpleNamespace(begin=lambda *given: None, end=end)) for end in ends]
    with pytest.raises(OSError, match="gone"), reporting(reporters, small_config(), 0):
        pass
    assert sorted(ended) == ["broken", "first", "last"]
