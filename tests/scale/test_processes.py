from __future__ import annotations

import multiprocessing
import signal
from types import SimpleNamespace

import pytest

from maskrcnn.errors import TrainingError
from maskrcnn.scale.manifest import Shard
from maskrcnn.scale.processes import ATTEMPTS, _say_lost, _Worker, in_processes


def test_a_part_whose_process_is_always_lost_ends_the_run(capsys):
    pipe, _ = multiprocessing.Pipe()
    worker = _Worker(SimpleNamespace(exitcode=-signal.SIGKILL), pipe, Shard(3, ("a.png",)))
    for times in range(1, ATTEMPTS):
        _say_lost(worker, times)
        assert "part-00003.parquet: the process that writes it ended with SIGKILL" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="3 times; choose fewer --workers or a smaller --batch-size"):
        _say_lost(worker, ATTEMPTS)


def test_no_process_is_started_for_nothing():
    assert list(in_processes(SimpleNamespace(threads=None), [], 4)) == []
