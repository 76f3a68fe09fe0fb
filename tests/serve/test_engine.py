"""The queue: bounded, in time, and alive after a failure."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.config import DetectConfig
from maskrcnn.errors import MaskRCNNError
from maskrcnn.predict import Backend, Predictor
from maskrcnn.serve.engine import Engine, InThread
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.settings import Limits
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.instances import Instances

LANDSCAPE = np.zeros((32, 48, 3), np.uint8)
PORTRAIT = np.zeros((48, 32, 3), np.uint8)


@dataclass
class Gate:
    """A backend that waits until it is opened, counts its batches, and fails on demand."""

    backend: Backend
    opened: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    failures: int = 0

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def computes_in(self) -> str:
        return self.backend.computes_in

    @property
    def static_shapes(self) -> bool:
        return False

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        if self.batches or self.opened.is_set():  # the first batch warms up
            assert self.opened.wait(10)
        self.batches.append(len(images))
        if self.failures and len(self.batches) > 1:
            self.failures -= 1
            raise RuntimeError("out of memory")
        return self.backend.detect(images, settings)


@contextmanager
def engine_of(model: Predictor, **limits: Any) -> Iterator[tuple[Engine, Gate]]:
    gate = Gate(model.backend)
    engine = Engine(InThread(replace(model, backend=gate)), Limits(**limits), lambda objects, seconds: None)
    engine.start()
    try:
        yield engine, gate
    finally:
        gate.opened.set()
        engine.close()


def ask(engine: Engine, image: np.ndarray = LANDSCAPE) -> Coroutine[Any, Any, Any]:
    return engine.ask(lambda: image, lambda pixels, found: len(found))


async def ready(engine: Engine) -> None:
    while not engine.ready:
        await asyncio.sleep(0.01)


def test_requests_beyond_the_queue_are_refused_at_once(model: Predictor) -> None:
    async def run() -> None:
        with engine_of(model, queue=5) as (engine, gate):
            await ready(engine)
            accepted = [asyncio.create_task(ask(engine)) for _ in range(5)]
            await asyncio.sleep(0.05)
            start = time.monotonic()
            for _ in range(20):
                with pytest.raises(RefusalError, match="5 requests wait") as refused:
                    await ask(engine)
                assert refused.value.status == 503
                assert int(refused.value.headers["Retry-After"]) >= 1
            assert time.monotonic() - start < 0.5
            gate.opened.set()
            assert len(set(await asyncio.gather(*accepted))) == 1
            assert engine.unanswered == 0
            assert await ask(engine) > 0

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_computed(model: Predictor) -> None:
    async def run() -> None:
        with engine_of(model, timeout=0.2) as (engine, gate):
            await ready(engine)
            late = [asyncio.create_task(ask(engine)) for _ in range(20)]
            gone = [asyncio.create_task(ask(engine)) for _ in range(5)]
            await asyncio.sleep(0.05)
            for task in gone:
                task.cancel()
            results = await asyncio.gather(*late, *gone, return_exceptions=True)
            assert [result.status for result in results[:20]] == [504] * 20
            assert all(isinstance(result, asyncio.CancelledError) for result in results[20:])
            assert engine.unanswered == 0
            gate.opened.set()
            engine.limits = Limits()
            assert await ask(engine) > 0
            assert len(gate.batches) <= 1 + 6 + 1  # the warm-up, what had been read ahead, and the last one

    asyncio.run(run())


def test_no_request_is_printed(model: Predictor) -> None:
    """The text of a request holds its whole image, and making it would stop all other requests."""
    printed: list[bool] = []

    class Read:
        def __call__(self) -> np.ndarray:
            return LANDSCAPE

        def __repr__(self) -> str:
            printed.append(True)
            return "the image"

    async def run() -> None:
        with engine_of(model) as (engine, gate):
            await ready(engine)
            gate.opened.set()
            assert await engine.ask(Read(), lambda pixels, found: "answer") == "answer"

    asyncio.run(run())
    assert not printed


def test_a_failure_of_the_network_does_not_end_the_engine(model: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        with engine_of(model) as (engine, gate):
            gate.failures = 1
            gate.opened.set()
            results = await asyncio.gather(*(ask(engine) for _ in range(3)), return_exceptions=True)
            assert all("out of memory" in str(result) for result in results if isinstance(result, Exception))
            assert any(isinstance(result, Exception) for result in results)
            assert await ask(engine) > 0

    asyncio.run(run())
    assert "out of memory" in caplog.text


def failing(*_: object) -> Any:
    raise OSError("no space left")


@pytest.mark.parametrize(
    ("read", "then"), [(failing, lambda pixels, found: 0), (lambda: LANDSCAPE, failing)], ids=["read", "then"]
)
def test_a_failure_of_one_request_does_not_reach_the_others(
    model: Predictor, read: Callable[[], np.ndarray], then: Callable[[np.ndarray, Instances], Any]
) -> None:
    async def run() -> None:
        with engine_of(model) as (engine, gate):
            gate.opened.set()
            results = await asyncio.gather(ask(engine), engine.ask(read, then), ask(engine), return_exceptions=True)
            assert [type(result) for result in results] == [int, OSError, int]

    asyncio.run(run())


def test_images_of_one_orientation_pass_together(model: Predictor) -> None:
    async def run() -> Sequence[int]:
        with engine_of(model, batch_size=4, max_wait=0.2) as (engine, gate):
            await ready(engine)
            gate.opened.set()
            images = [LANDSCAPE, LANDSCAPE, PORTRAIT, LANDSCAPE]
            assert all(isinstance(found, int) for found in await asyncio.gather(*(ask(engine, i) for i in images)))
            return gate.batches[1:]

    assert asyncio.run(run()) == [3, 1]


def test_closing_answers_what_waits(model: Predictor) -> None:
    async def run() -> None:
        with engine_of(model) as (engine, gate):
            await ready(engine)
            tasks = [asyncio.create_task(ask(engine)) for _ in range(12)]
            await asyncio.sleep(0.05)
            gate.opened.set()
            await asyncio.to_thread(engine.close)
            assert all(isinstance(found, int) for found in await asyncio.gather(*tasks))

    asyncio.run(run())


@dataclass(frozen=True)
class Crew(InThread):
    """Loses each job some times before it computes it, as a process that ends does, and then goes on or fails."""

    losses: int = 1
    failure: MaskRCNNError | None = None

    def work(self, engine: Engine) -> None:
        for _ in range(self.losses):
            engine.put_back(engine.take(1, wait=True))
        if self.failure is not None:
            raise self.failure
        super().work(engine)


def asked(model: Predictor, **crew: Any) -> tuple[Any, Engine]:
    engine = Engine(Crew(model, **crew), Limits(), lambda objects, seconds: None)

    async def run() -> Any:
        engine.start()
        (result,) = await asyncio.gather(ask(engine), return_exceptions=True)
        await asyncio.to_thread(engine.close)
        return result

    return asyncio.run(run()), engine


def test_the_job_of_a_process_that_ends_is_computed_by_another_one_once(model: Predictor) -> None:
    found, engine = asked(model)
    assert found == len(model.predict(LANDSCAPE)[0])
    assert engine.failure is None
    given_up, _ = asked(model, losses=2)
    assert isinstance(given_up, RefusalError)
    assert given_up.status == 500


def test_jobs_are_refused_when_nobody_can_compute_them(model: Predictor) -> None:
    reason = MaskRCNNError("no memory")
    refused, engine = asked(model, failure=reason)
    assert (type(refused), refused.status) == (RefusalError, 503)
    assert (engine.failure, engine.ready) == (reason, False)


def test_jobs_that_come_after_the_failure_are_refused_at_once(model: Predictor) -> None:
    async def run() -> None:
        crew = Crew(model, losses=0, failure=MaskRCNNError("no memory"))
        engine = Engine(crew, Limits(timeout=5), lambda objects, seconds: None)
        early = asyncio.create_task(ask(engine))
        engine.start()
        results = await asyncio.gather(early, *(ask(engine) for _ in range(5)), return_exceptions=True)
        while engine.failure is None:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(engine.close)  # the failed thread has ended
        results += await asyncio.gather(ask(engine), return_exceptions=True)
        assert [getattr(result, "status", result) for result in results] == [503] * 7
        assert engine.unanswered == 0

    asyncio.run(run())


def test_a_job_that_was_with_a_process_when_it_ended_is_given_alone(model: Predictor) -> None:
    async def run() -> None:
        engine = Engine(InThread(model), Limits(), lambda objects, seconds: None)
        asked = [asyncio.create_task(ask(engine)) for _ in range(4)]
        await asyncio.sleep(0)
        jobs = engine.take(2, wait=True)
        assert len(jobs) == 2
        engine.put_back(jobs)
        assert engine.take(3, wait=False) == []
        assert engine.take(3, wait=True) == jobs[:1]
        assert engine.take(3, wait=True) == jobs[1:]
        assert len(engine.take(3, wait=False)) == 2
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(run())
