"""What every test shares: the real data beside the checkout, thread limits, and no silent skips in CI."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI") == "true"
SHARED = Path(__file__).resolve().parents[2] / "shared"

# No deadline: the first call of a property pays for imports and for a busy machine.
# In CI the examples are always the same ones, so that a red run can be repeated.
settings.register_profile("maskrcnn", deadline=None, max_examples=50, derandomize=IN_CI)
settings.load_profile("maskrcnn")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, `../shared` seen from the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not found: expected the folder {SHARED}")
    return SHARED


# The files with the longest slow tests. They begin first, so that none is left to one process at the end.
LONGEST = (
    *("fuzz/test_fuzz.py", "export/test_save.py", "benchmark/test_train.py", "benchmark/test_predict.py"),
    *("models/test_lowered.py", "tests/test_readme.py", "training/test_world.py", "training/test_run.py"),
    *("examples/test_cpp.py", "structures/test_records.py", "training/test_loop.py"),
    "models/test_torchvision_parity.py",
    *("fuzz/test_requests.py", "training/test_step.py", "evaluation/test_coco_api.py", "benchmark/test_loader.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items:
        import torch  # takes seconds: only when a test asks for a GPU

        if not torch.cuda.is_available():
            for item in gpu_items:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


class NoSilentSkips:
    """Fails a session in which a test was skipped that is not marked gpu: what CI skips, nobody runs."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        expected = "gpu" in getattr(report, "keywords", ()) or hasattr(report, "wasxfail")
        if report.skipped and not expected:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped although CI must run them", red=True)
            for line in self.skipped:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # Below `nohup` a run ignores the signal, and so would the runs to which tests send it.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    if not Path("/dev/nvidiactl").exists():  # before Triton is imported anywhere: the kernels run without a GPU too
        os.environ.setdefault("TRITON_INTERPRET", "1")
    is_xdist_worker = hasattr(config, "workerinput")  # its reports reach the controller too
    # Before torch is imported anywhere: never more threads than this process may use, shared among xdist's workers.
    # Not for the process that hands out the tests, whose environment the workers inherit.
    if not getattr(config.option, "numprocesses", None):
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // workers)))
    if IN_CI and not is_xdist_worker:
        config.pluginmanager.register(NoSilentSkips(), "no-silent-skips")
