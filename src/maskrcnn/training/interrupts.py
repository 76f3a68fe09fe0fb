"""The signals that ask a run to stop: Ctrl-C, the end of a process or terminal, and a batch system's warning."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from maskrcnn.data.loading.processes import STOP_SIGNALS

Item = TypeVar("Item")
Track = Callable[[Iterable[Item], int], Iterator[Item]]  # wraps items with their number, for a progress bar


class InterruptedEvaluationError(Exception):
    """The run was interrupted during an evaluation."""


def until_interrupted(track: Track[Item], interrupted: Sequence[int]) -> Track[Item]:
    """Wraps items as `track` does, and raises InterruptedEvaluationError once there is a signal."""

    def wrapped(items: Iterable[Item], total: int) -> Iterator[Item]:
        for item in track(items, total):
            if interrupted:
                raise InterruptedEvaluationError
            yield item

    return wrapped


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collects the signals that ask for a stop, so that the loop can stop between two steps and save.

    After the first one, Ctrl-C ends the process at once. The others may come again, because terminals and batch systems
    send them to a process and to its group. A signal that is ignored from the start stays ignored, as with `nohup`.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not received:
            signal.signal(signal.SIGINT, previous[signal.SIGINT])
        received.append(number)

    previous = {}
    with suppress(ValueError):  # only the main thread can handle signals; elsewhere the caller does
        for kind in STOP_SIGNALS:
            handler = signal.getsignal(kind)
            # A shell lets its background jobs ignore SIGINT; one that is sent on purpose is still heeded.
            if handler is not signal.SIG_IGN or kind is signal.SIGINT:
                signal.signal(kind, note)
                previous[kind] = signal.SIG_DFL if handler is None else handler
    try:
        yield received
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
