"""A progress bar for what takes long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

SHOWN_AFTER = 2.0  # seconds
_TICK = 0.1  # seconds between two changes of the bar


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items. If they take over two seconds, a bar on standard error shows their number, rate and the time left.

    Without a terminal, only the last state of the bar is printed. Of the processes of `torchrun`, only the first one
    shows it.

    Args:
        what: names the items, or what is done with them.
        total: their number, if it is known. None: their length, if they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")
    if not console.is_terminal:
        console.width = 100
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task(what, total=total, rate="")
    began = changed = time.monotonic()
    done = 0
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if now - changed > _TICK:
                changed = now
                bar.update(task, completed=done, rate=_rate(done / (now - began)))
                if now - began > SHOWN_AFTER and not bar.live.is_started:
                    bar.start()
    finally:
        if bar.live.is_started:
            bar.update(task, completed=done)
            bar.stop()


def _rate(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"
