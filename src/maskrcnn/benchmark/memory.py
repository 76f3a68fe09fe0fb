"""Measures the memory of one side alone: on a CPU in a separate process, on a GPU by the counts of the allocator."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, get_start_method
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from maskrcnn.allocator import return_freed_memory, trim
from maskrcnn.errors import MaskRCNNError

# Linux records the peak of a process and can reset it (man 5 proc, clear_refs). The peak of getrusage cannot be reset,
# and a child process inherits that of its parent.
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SHARES = Path("/proc/self/smaps_rollup")  # the shared and private memory of the process

_SAMPLES = 8  # made by each worker before its memory is read

_Found = TypeVar("_Found")
SideName = Literal["ours", "torchvision"]
Prepare = Callable[[], Callable[[], object]]  # prepares the work and returns the call to measure


class Memory(NamedTuple):
    """Bytes before the call (on a CPU: interpreter, libraries and weights; on a GPU: weights and inputs), and at the
    peak of the first call."""

    before: int
    peak: int

    @property
    def extra(self) -> int:
        return self.peak - self.before


def compare_memory(
    prepare: Callable[[SideName], Callable[[], object]], device: torch.device
) -> dict[str, Memory | None]:
    """The memory of each side, measured one after the other; see `peak_memory`."""
    sides: tuple[SideName, SideName] = ("ours", "torchvision")
    return {side: peak_memory(partial(prepare, side), device) for side in sides}


def memory_to_dict(memory: Mapping[str, Memory | None]) -> dict[str, dict[str, int] | None]:
    return {side: found._asdict() if found else None for side, found in memory.items()}


def peak_memory(prepare: Prepare, device: torch.device) -> Memory | None:
    """Measures the first call of the function that `prepare` returns.

    On a CPU, freed memory is returned to the system at once. The C library would otherwise keep an amount that differs
    by 100 MB between processes.

    Args:
        prepare: a function at the top level of a module, or a `partial` of one, because it is sent to another process.

    Returns:
        None if the system does not report peaks.

    Raises:
        MaskRCNNError: the process was killed, most likely because memory ran out.
    """
    if device.type == "cuda":
        return _on_gpu(prepare, device)
    if not _CLEAR.exists():
        return None
    return _in_a_process(partial(_here, prepare, torch.get_num_threads()), "choose a smaller size")


def _in_a_process(call: Callable[[], _Found], hint: str) -> _Found:
    """The result of a call in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(call).result()
        except BrokenProcessPool:
            raise MaskRCNNError(
                "the process in which memory was measured was killed; most likely memory ran out: "
                f"{hint}, or --no-memory"
            ) from None


def _here(prepare: Prepare, threads: int) -> Memory | None:
    return_freed_memory()
    torch.set_num_threads(threads)
    call = prepare()
    try:
        _CLEAR.write_text("5")
    except OSError:  # a container may forbid it
        return None
    before = _status("VmRSS")
    call()
    return Memory(before, _status("VmHWM"))


class Visitable(Protocol):
    """A data set whose memory is measured."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> object:
        """Makes the training sample of image number `index`."""

    def visit(self, index: int) -> object:
        """Reads every annotation of image number `index`, as a sample does."""


def worker_memory(make: Callable[[], Visitable], workers: int) -> int | None:
    """Mean bytes that a loader's worker process shares with no other process (its unique set size).

    Before the measurement, each worker makes `_SAMPLES` samples, reads all annotations as an epoch does, collects
    garbage, which writes to every container that Python tracks, and returns free memory to the system.

    Args:
        make: builds the data set in a new process, which then starts the workers. A function at the top level of a
            module, or a `partial` of one.

    Returns:
        None if the system does not report shared memory.

    Raises:
        MaskRCNNError: the process was killed, most likely because memory ran out.
    """
    if not _SHARES.exists():
        return None
    return _in_a_process(partial(_of_workers, make, workers, get_start_method()), "choose fewer --annotations")


def _of_workers(make: Callable[[], Visitable], workers: int, start: str) -> int:
    # Without a context, a spawned process would spawn its workers too.
    loader = DataLoader(_Measured(make(), workers), None, num_workers=workers, multiprocessing_context=start)
    return round(statistics.fmean(loader))


class _Measured(Dataset[int]):
    """One item per worker: the bytes that it shares with no other process."""

    def __init__(self, data: Visitable, workers: int) -> None:
        self.data, self.workers = data, workers

    def __len__(self) -> int:
        return self.workers

    def __getitem__(self, _: int) -> int:
        for index in range(_SAMPLES):
            self.data.sample(index % len(self.data))
        for index in range(len(self.data)):
            self.data.visit(index)
        gc.collect()
        trim()
        lines = _SHARES.read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _on_gpu(prepare: Prepare, device: torch.device) -> Memory:
    call = prepare()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return Memory(before, torch.cuda.max_memory_allocated(device))
