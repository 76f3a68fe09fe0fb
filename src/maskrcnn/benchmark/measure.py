"""Times two calls in turns in one process, and summarises the times."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from maskrcnn.benchmark.settings import Timing
from maskrcnn.errors import ConfigError
from maskrcnn.threads import usable_cores

Mark = float | torch.cuda.Event  # a moment: of the wall clock in seconds, or in the queue of a GPU
Track = Callable[[Iterable[Any], str], Iterable[Any]]


def open_device(name: str | None) -> torch.device:
    """The device of this name; None gives the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch cannot compute there, or it is neither a CPU nor a CUDA device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: this torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device must be cpu or a GPU that works, found {name!r} ({reason})") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu or cuda: other devices cannot be timed, found {name!r}")
    return device


@dataclass(frozen=True)
class Comparison:
    """Seconds of both sides, one pair per round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Their median time divided by ours: above 1, ours is faster."""
        return float(np.median(self.theirs) / np.median(self.ours))

    def to_dict(self) -> dict[str, Any]:
        """The quartiles of each side's seconds and of the rounds' ratios, and the ratio of the medians."""
        paired = np.array(self.theirs) / np.array(self.ours)
        return {
            "ours": quartiles(self.ours),
            "torchvision": quartiles(self.theirs),
            "ratio": self.ratio,
            "ratio_of_rounds": quartiles(paired),
            "rounds": len(self.ours),
        }


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = np.percentile(list(values), [25, 50, 75])
    return {"q1": float(low), "median": float(middle), "q3": float(high)}


def no_track(rounds: Iterable[int], words: str) -> Iterable[int]:
    """A `Track` that shows nothing."""
    return rounds


class Stopwatch:
    """Measures seconds between moments on a device.

    On a CPU, a moment is the time of the wall clock. On a GPU, it is an event in the queue, because calls return before
    the GPU has finished.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Mark:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, start: Mark, end: Mark) -> float:
        """Seconds between two moments; on a GPU, waits until `end` is reached."""
        if isinstance(start, float) and isinstance(end, float):
            return end - start
        assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def time(self, call: Callable[[], object]) -> float:
        """Seconds of one call, from an idle device until the device is idle again."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = self.mark()
        result = call()
        seconds = self.seconds(start, self.mark())
        del result  # freeing it is not part of the work
        return seconds


@dataclass(frozen=True)
class Sitting:
    """One benchmark in one process.

    Attributes:
        track: wraps the numbers of the rounds to show a progress bar with a description.
    """

    timing: Timing
    device: torch.device
    track: Track = no_track

    @property
    def all_rounds(self) -> range:
        """The numbers of all rounds, warm-up first."""
        return range(self.timing.warmup + self.timing.rounds)

    def in_turns(self, ours: Callable[[int], object], theirs: Callable[[int], object]) -> Comparison:
        """Times both calls once per round; each receives the number of the round."""
        watch = Stopwatch(self.device)
        times: tuple[list[float], list[float]] = ([], [])
        calls = (ours, theirs)
        for number in self.track(self.all_rounds, "in turns"):
            for side in (0, 1) if number % 2 == 0 else (1, 0):  # so that drift and caches favour neither side
                times[side].append(watch.time(partial(calls[side], number)))
        return Comparison(*(tuple(seconds[self.timing.warmup :]) for seconds in times))

    def times(self, call: Callable[[], object]) -> tuple[float, ...]:
        """Seconds of one call, one value per round."""
        watch = Stopwatch(self.device)
        return tuple([watch.time(call) for _ in self.all_rounds][self.timing.warmup :])

    def copy_times(self, size: int) -> tuple[float, ...]:
        """Seconds of a copy on the device that reads and writes `size` bytes in all, one value per round."""
        source = torch.ones(size // 2, dtype=torch.uint8, device=self.device)
        target = source.clone()
        return self.times(lambda: target.copy_(source))

    def environment(self) -> dict[str, Any]:
        return environment(self.device, self.timing.precision)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions and machine, without which a speed cannot be interpreted."""
    import torchvision

    from maskrcnn import __version__

    on_gpu = device.type == "cuda"
    cores = len(usable_cores())
    return {
        "maskrcnn": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "processor": next(_processor_names(), platform.machine()),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # processes, last minute
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "precision": precision,
    }


def _processor_names() -> Iterator[str]:
    """Names of the processor, the most specific first: the model on Linux, then the family."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    yield line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.processor():
        yield platform.processor()
