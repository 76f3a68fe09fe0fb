"""Does the same work for many files or objects of a data set, with several processes where that saves time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

from maskrcnn.data.loading.processes import Duty, ordered_results, processors
from maskrcnn.files.progress import track

T = TypeVar("T")
R = TypeVar("R")

ALONE = 0.5  # seconds that this process works by itself. They tell how long all the work will take
WORTH = 1.0  # seconds of work left, from which on processes are started
_PART = 0.1  # seconds of work that a process gets at a time
_MOST = 500  # items in such a part
_THREADS = 8  # of each process, if reading is mostly waiting for a disk


def of_each(work: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """`work` of every item, in order, with a progress bar, and with a process for each core if there is much to do.

    Args:
        work: also called in other processes. Its results, and where processes are not forked it and the items, can be
            pickled.
        what: names the items, for the progress bar and for messages.

    Raises:
        MaskRCNNError: `work` raised it for the first item for which it raised anything.
        TrainingError: a process was killed or stopped.
    """
    return list(track(_results(work, items, what), what, len(items)))


def _results(work: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
    began, used = time.monotonic(), time.process_time()
    done = 0
    while done < len(items) and time.monotonic() - began < ALONE:
        yield work(items[done])
        done += 1
    rest = items[done:]
    spent = max(time.monotonic() - began, 1e-9)
    pace = spent / max(done, 1)
    workers = processors()
    if workers < 2 or pace * len(rest) < WORTH:
        yield from map(work, rest)
        return
    size = min(max(int(_PART / pace), 1), _MOST)
    parts = [rest[start : start + size] for start in range(0, len(rest), size)]
    waits = time.process_time() - used < spent / 2
    of_part = partial(_in_threads if waits else _in_turn, work)
    duty = Duty(f"reads {what}", "free memory and try again")
    with closing(ordered_results(of_part, parts, workers, duty=duty)) as results:
        for part in results:
            yield from part


def _in_turn(work: Callable[[T], R], part: Sequence[T]) -> list[R]:
    return [work(item) for item in part]


def _in_threads(work: Callable[[T], R], part: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, part))
