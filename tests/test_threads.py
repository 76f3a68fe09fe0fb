"""The number of threads follows from the idle cores, before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn import threads
from maskrcnn.threads import busy_cores, choose_threads, threads_beside

# user nice system idle iowait irq softirq steal: the lines of Linux's proc_stat(5)
BEFORE = """cpu  300 0 30 700 0 0 0 0 0 0
cpu0 100 0 10 350 0 0 0 0 0 0
cpu1 200 0 20 350 0 0 0 0 0 0
intr 1234
"""


def after(core0: str, core1: str) -> str:
    return f"cpu  1 1 1 1 1\ncpu0 {core0}\ncpu1 {core1}\nctxt 99\n"


def test_busy_cores_are_those_that_work_between_two_readings() -> None:
    assert busy_cores(BEFORE, after("110 0 10 350 0 0 0 0", "200 0 20 360 0 0 0 0"), [0, 1]) == 1.0
    assert busy_cores(BEFORE, after("105 0 10 355 0 0 0 0", "200 0 20 350 0 2 3 5"), [0, 1]) == 1.5
    assert busy_cores(BEFORE, after("110 0 10 350 0 0 0 0", "200 0 20 360 0 0 0 0"), [1]) == 0.0


def test_work_of_low_priority_and_waiting_for_a_disk_count_as_idle() -> None:
    assert busy_cores(BEFORE, after("100 10 10 350 0 0 0 0", "200 0 20 350 10 0 0 0"), [0, 1]) == 0.0


def test_what_the_system_does_not_tell_counts_as_idle() -> None:
    assert busy_cores("", "", [0, 1]) == 0.0
    assert busy_cores(BEFORE, BEFORE, [0, 1, 7]) == 0.0


@pytest.mark.parametrize(
    ("busy", "cores", "physical", "expected"),
    [
        *[(0.0, 2, 1, 2), (0.4, 2, 2, 2), (1.0, 2, 2, 1), (2.0, 2, 2, 1), (5.0, 2, 2, 1), (0.0, 1, 1, 1)],
        *[(1.0, 1, 1, 1), (1.2, 4, 2, 3), (4.0, 16, 16, 12), (16.0, 16, 16, 1)],
        *[(0.1, 16, 8, None), (1.0, 16, 8, 8), (12.0, 16, 8, 4)],  # never more than torch's own number
    ],
)
def test_idle_cores_get_a_thread_each(busy: float, cores: int, physical: int, expected: int | None) -> None:
    assert threads_beside(busy, cores, physical) == expected


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As at the start of a command on two cores: torch is not imported, and nothing was chosen."""
    monkeypatch.setattr(threads, "sentence", "")
    monkeypatch.setattr(threads, "SAMPLE", 0)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def pretend(patch: pytest.MonkeyPatch, later: str) -> None:
    readings = iter((BEFORE, later))
    patch.setattr(threads, "_core_times", lambda: next(readings))


def test_beside_a_busy_process_there_is_one_thread_that_does_not_spin(fresh: pytest.MonkeyPatch) -> None:
    pretend(fresh, after("110 0 10 350 0 0 0 0", "200 0 20 360 0 0 0 0"))
    choose_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("1", "passive")
    assert threads.sentence.startswith("other processes keep 1.0 of 2 cores busy: 1 thread;")


def test_an_idle_machine_gets_all_its_cores(fresh: pytest.MonkeyPatch) -> None:
    pretend(fresh, after("100 0 10 360 0 0 0 0", "200 0 20 360 0 0 0 0"))
    choose_threads()
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_WAIT_POLICY" not in os.environ
    assert not threads.sentence


def test_the_number_of_the_user_stays(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("OMP_NUM_THREADS", "7")
    pretend(fresh, after("110 0 10 350 0 0 0 0", "210 0 20 350 0 0 0 0"))
    choose_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert not threads.sentence


@pytest.mark.slow
def test_a_command_chooses_before_torch_is_imported() -> None:
    """In a process of its own, because torch is imported here."""
    program = (
        "import sys\nfrom maskrcnn import threads\n"
        "threads._core_times = iter(('cpu0 0 0 0 0 0\\ncpu1 0 0 0 0 0', 'cpu0 9 0 0 0 0\\ncpu1 0 0 0 9 0')).__next__\n"
        "threads.os.sched_getaffinity = lambda _: {0, 1}\n"
        "from maskrcnn.cli import main\nmain(['presets'])\nassert 'torch' in sys.modules\n"
        "import torch\nprint(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "1"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells how busy its cores are")
def test_linux_tells_how_busy_its_cores_are() -> None:
    assert len(threads._busy_and_all(threads._core_times())) >= (os.cpu_count() or 1)
    cores = sorted(os.sched_getaffinity(0))
    assert 1 <= threads._physical(cores) <= len(cores)
    assert threads._physical([10**6]) == 1  # no such core: nothing is known of it
