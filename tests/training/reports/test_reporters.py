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
