from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn.benchmark import load
from maskrcnn.benchmark.load import ServeReport, Tally, bench_serve, is_right, percentiles, resident_bytes
from maskrcnn.benchmark.settings import ServeSettings
from maskrcnn.ops.device import Precision
from maskrcnn.predict import Predictor, to_coco_results
from maskrcnn.threads import threads_of_each
from small_data import random_predictor, small_coco


def report(tally: Tally, exit_code: int = 0) -> ServeReport:
    return ServeReport(ServeSettings(), {}, tally, (3.0, 5.0), 2.0, None, exit_code)


def test_lost_and_wrong_answers_and_a_failed_end_are_no_success() -> None:
    good = report(Tally([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.01]))
    assert good.agree
    assert (good.served, good.ratio) == (3.0, 0.75)
    assert good.line() == "6 answers, 1 refused with 503, 0 lost, 0 wrong"
    assert percentiles(good.tally.seconds) == {"p50": pytest.approx(0.35), "p99": pytest.approx(0.595)}
    assert json.loads(json.dumps(good.to_dict()))["answers"] == {"right": 6, "refused": 1, "wrong": [0], "lost": [0]}
    for tally, exit_code in (
        (Tally(), 0),
        (Tally([1.0], lost=["reset"]), 0),
        (Tally([1.0], wrong=["200"]), 0),
        (Tally([1.0]), 1),
    ):
        assert not report(tally, exit_code).agree
    assert "1 lost, 0 wrong, reset" in report(Tally([1.0], lost=["reset"])).line()
    assert percentiles([]) == {}


def test_answers_are_compared_object_by_object() -> None:
    right = to_coco_results(random_predictor().predict(small_coco(1)[1][0])[0], 0)
    assert len(right) > 5

    def answer(change: Any = lambda objects: None) -> bytes:
        objects = json.loads(json.dumps(right))
        change(objects)
        return json.dumps({"objects": objects}).encode()

    assert is_right(answer(), right)
    assert is_right(answer(lambda objects: objects[0].update(score=objects[0]["score"] + 1e-6)), right)
    for change in (
        lambda objects: objects.pop(),
        lambda objects: objects[0].update(score=0.999),
        lambda objects: objects[1].update(category_id=99),
        lambda objects: objects[2]["bbox"].__setitem__(0, 70.0),
        lambda objects: objects[3].update(segmentation=objects[4]["segmentation"]),
        lambda objects: objects[3].pop("segmentation"),
    ):
        assert not is_right(answer(change), right)
    assert not is_right(b"{}", right)
    assert not is_right(b"no JSON", right)


def test_the_right_answers_are_those_of_as_many_threads_as_a_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, before = random_predictor(), [], torch.get_num_threads()

    def opened(source: str, precision: Precision, threads: int | None) -> Predictor:
        asked.append(threads)
        torch.set_num_threads(threads or before)
        return model

    monkeypatch.setattr(load, "load", opened)
    for threads, processes in ((None, 1), (None, 2), (3, 2)):
        load._direct("m", (), ServeSettings(threads=threads, processes=processes))
        assert torch.get_num_threads() == before
    assert asked == [None, threads_of_each(2), 3]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_the_memory_of_processes_is_known() -> None:
    assert resident_bytes(1 << 30) == 0
    assert resident_bytes(os.getpid()) > 1e7


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "processes"), [("fp32", 1), ("bf16", 2)])
def test_a_server_under_load(precision: Precision, processes: int, tmp_path: Path) -> None:
    random_predictor().save(tmp_path / "m.safetensors")
    settings = ServeSettings(
        clients=12, seconds=3, queue=4, processes=processes, precision=precision, count=3, size=(128, 192)
    )
    threads = torch.get_num_threads()
    found = bench_serve(str(tmp_path / "m.safetensors"), (), settings, tmp_path)
    assert found.agree, found.line()
    assert found.tally.refused
    assert found.memory is None or found.memory[1] > 0
    assert torch.get_num_threads() == threads
