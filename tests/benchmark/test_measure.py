from __future__ import annotations

import time

import pytest
import torch

from maskrcnn.benchmark.measure import Comparison, Sitting, Stopwatch, environment, open_device, quartiles
from maskrcnn.benchmark.settings import Timing
from maskrcnn.errors import ConfigError

CPU = torch.device("cpu")


def test_sides_take_turns_and_warm_up_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def ours(number: int) -> None:
        order.append(("ours", number))

    def theirs(number: int) -> None:
        order.append(("theirs", number))
        time.sleep(0.2 if number == 0 else 0.01)

    bars: list[str] = []

    def track(rounds, words):
        bars.append(words)
        return rounds

    found = Sitting(Timing(rounds=3, warmup=1), CPU, track).in_turns(ours, theirs)
    assert order == [
        *(("ours", 0), ("theirs", 0)),
        *(("theirs", 1), ("ours", 1)),
        *(("ours", 2), ("theirs", 2)),
        *(("theirs", 3), ("ours", 3)),
    ]
    assert bars == ["in turns"]
    assert len(found.ours) == len(found.theirs) == 3
    assert all(0.01 <= seconds < 0.2 for seconds in found.theirs)  # the slow one was the warm-up
    assert all(seconds < 0.01 for seconds in found.ours)


def test_figures_of_a_comparison() -> None:
    found = Comparison(ours=(1.0, 2.0, 5.0), theirs=(4.0, 4.0, 5.0)).to_dict()
    assert found["ours"] == {"q1": 1.5, "median": 2.0, "q3": 3.5}
    assert found["torchvision"]["median"] == 4.0
    assert found["ratio"] == 2.0  # of the medians
    assert found["ratio_of_rounds"] == {"q1": 1.5, "median": 2.0, "q3": 3.0}  # of 4, 2 and 1
    assert found["rounds"] == 3


def test_quartiles_of_one_value() -> None:
    assert quartiles([3.0]) == {"q1": 3.0, "median": 3.0, "q3": 3.0}


def test_the_watch_measures_the_call_alone() -> None:
    assert 0.02 <= Stopwatch(CPU).time(lambda: time.sleep(0.02)) < 0.2


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta"])
def test_a_device_that_cannot_be_timed_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device must be cpu or .*found '{name}'"):
        open_device(name)


def test_the_environment_names_what_a_figure_depends_on() -> None:
    found = environment(CPU, "fp32")
    assert {"maskrcnn", "torch", "torchvision", "python", "processor", "cores", "threads", "load"} <= set(found)
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()


@pytest.mark.gpu
def test_events_cover_work_on_the_device_and_on_the_host() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(8192, 8192, device=device)
    watch = Stopwatch(device)
    watch.time(lambda: matrix @ matrix)
    start = time.perf_counter()
    seconds = watch.time(lambda: [matrix @ matrix for _ in range(10)])
    wall = time.perf_counter() - start
    assert 0.5 * wall < seconds <= wall  # a clock read when the calls return would show microseconds
    assert watch.time(lambda: time.sleep(0.05)) >= 0.05
