"""The number of threads of torch and how they wait. Both are chosen before torch is imported, which reads them then."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

SAMPLE = 0.1  # seconds in which the work of other processes is measured
FEW = 4  # cores, up to which torch gets all of them
BUSY = 0.5  # a machine whose other processes use less than this many cores counts as idle

sentence = ""  # what `choose_threads` has chosen because of other processes, for the beginning of long work


def choose_threads() -> None:
    """Sets OMP_NUM_THREADS and OMP_WAIT_POLICY for this process, where the user has not set them.

    torch divides each layer into equal parts, one for each thread, and waits for the last part. So one thread that
    another process has put aside stops all of them. On a machine with other work, torch therefore gets as many threads
    as there are idle cores, and a waiting thread gives its core away instead of spinning.

    By default torch runs one thread for each physical core, and virtual machines often show two cores as one. On an
    idle machine with up to `FEW` cores, torch therefore gets all of them: a training step took 2.5 s with one thread
    and 1.5 s with two.
    """
    global sentence
    if "OMP_NUM_THREADS" in os.environ or "torch" in sys.modules:
        return
    cores = usable_cores()
    busy = _busy_cores(cores)
    threads = threads_beside(busy, len(cores), _physical(cores))
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if busy >= BUSY:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        sentence = (
            f"other processes keep {busy:.1f} of {len(cores)} cores busy: "
            f"{threads} thread{'s' if threads != 1 else ''}; OMP_NUM_THREADS chooses another number"
        )


def usable_cores() -> list[int]:
    """The numbers of the cores on which this process may run."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def threads_of_each(processes: int) -> int:
    """The number of threads with which each of several processes computes that share the cores of this one."""
    return max(1, len(usable_cores()) // processes)


def threads_beside(busy: float, cores: int, physical: int) -> int | None:
    """The number of threads for a machine on which other processes keep `busy` of the usable cores busy.

    Args:
        cores: as the system counts them, where two may share one physical core.
        physical: cores in the processor.

    Returns:
        At least 1; None leaves the number to torch.
    """
    if busy >= BUSY:
        return max(1, min(cores if cores <= FEW else physical, cores - math.ceil(busy - BUSY)))
    return cores if cores <= FEW else None


def _physical(cores: list[int]) -> int:
    """How many physical cores these are; all of them where the system does not tell."""
    try:
        return len({Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings").read_text() for core in cores})
    except OSError:
        return len(cores)


def _busy_cores(cores: list[int]) -> float:
    """How many of these cores are busy now; 0 where the system does not tell."""
    before = _core_times()
    if not before:
        return 0.0
    time.sleep(SAMPLE)
    return busy_cores(before, _core_times(), cores)


def _core_times() -> str:
    try:
        return Path("/proc/stat").read_text()
    except OSError:
        return ""


def busy_cores(before: str, after: str, cores: list[int]) -> float:
    """How many of these cores were busy between two readings of Linux's `/proc/stat`.

    Work of low priority (nice) counts as idle, because it makes way.
    """
    first, last = _busy_and_all(before), _busy_and_all(after)
    busy = 0.0
    for core in cores:
        if core in first and core in last:
            (busy_before, all_before), (busy_after, all_after) = first[core], last[core]
            busy += (busy_after - busy_before) / max(1, all_after - all_before)
    return busy


def _busy_and_all(text: str) -> dict[int, tuple[int, int]]:
    """Ticks of work and all ticks of each core."""
    found = {}
    for line in text.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and len(numbers) >= 5:
            user, nice, system, idle, waiting, *others = (int(number) for number in numbers[:8])
            busy = user + system + sum(others)
            found[int(name[3:])] = (busy, busy + nice + idle + waiting)
    return found
