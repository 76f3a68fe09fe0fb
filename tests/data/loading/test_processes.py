import os
import resource
import signal
import subprocess
import sys
from contextlib import closing
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType

import pytest
import torch

from maskrcnn.data.loading import processes
from maskrcnn.data.loading.processes import ordered_results
from maskrcnn.errors import DataError, TrainingError


def squared(number: int) -> torch.Tensor:
    if number == 7:
        raise DataError("seven is broken")
    if number == 8:
        raise ValueError("a defect")
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.tensor(number) ** 2


def test_results_come_in_order() -> None:
    results = list(ordered_results(squared, range(7), 2, then=lambda result: result + 1))
    assert [int(result) for result in results] == [number**2 + 1 for number in range(7)]


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (7, DataError, "seven is broken"),
        (8, RuntimeError, "in a process that loads images: .*a defect"),
        (9, TrainingError, "it ended with SIGKILL, perhaps out of memory; .*--shm-size .*--train.workers 0"),
    ],
)
def test_a_process_that_fails_ends_the_work(number: int, error: type[Exception], message: str) -> None:
    with closing(ordered_results(squared, [1, number, 2, 3], 2)) as results:
        assert int(next(results)) == 1
        with pytest.raises(error, match=f"(?s){message}"):
            list(results)


def test_processes_end_when_the_results_are_no_longer_wanted() -> None:
    results = ordered_results(process_id, range(100), 2)
    first = int(next(results))
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def process_id(number: int) -> torch.Tensor:
    return torch.tensor(os.getpid())


def stops(number: int) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGSTOP)
    return torch.tensor(number)


def without_memory(number: int) -> torch.Tensor:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow, nor may shared memory
    return torch.zeros(1000)


def test_a_stopped_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TICK", 0.1)
    monkeypatch.setattr(processes, "STOPPED", 0.2)
    with pytest.raises(TrainingError, match=r"it was stopped \(SIGSTOP\); .*--train.workers 0"):
        list(ordered_results(stops, range(2), 1))


def test_a_process_without_shared_memory_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"it found no shared memory \(.*--shm-size"):
        list(ordered_results(without_memory, range(2), 1))


def test_a_process_that_is_not_forked_does_not_run_the_script_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__file__ = "script.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert {"init_main_from_name", "init_main_from_path"} & spawn.get_preparation_data("a").keys()
    with processes.without_main():
        assert not {"init_main_from_name", "init_main_from_path"} & spawn.get_preparation_data("a").keys()
    assert sys.modules["__main__"] is main


@pytest.mark.slow
def test_a_script_without_a_guard_may_start_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
import multiprocessing
multiprocessing.set_start_method("forkserver")
import torch
from maskrcnn.data.loading.processes import ordered_results
print([int(number) for number in ordered_results(torch.neg, map(torch.tensor, range(5)), 2)])
"""
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, -1, -2, -3, -4]\n", "")
