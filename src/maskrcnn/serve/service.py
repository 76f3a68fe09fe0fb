"""What the routes share: the engines of the models, the limits and the state of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import Request

from maskrcnn.errors import MaskRCNNError
from maskrcnn.serve.bodies import Intake
from maskrcnn.serve.engine import Crew, Engine
from maskrcnn.serve.images import image_of
from maskrcnn.serve.metrics import Metrics
from maskrcnn.serve.problems import CLIENT_CLOSED_REQUEST, RefusalError
from maskrcnn.serve.settings import Limits
from maskrcnn.structures.instances import Instances

T = TypeVar("T")


class Service:
    """The models behind the address. The first one answers requests that name none."""

    def __init__(self, models: Mapping[str, Crew], limits: Limits) -> None:
        self.limits, self.metrics, self.intake = limits, Metrics(), Intake(limits)
        self.draining = False  # the server was told to end: it still answers, and is not ready
        self.engines: dict[str, Engine] = {}
        for name, crew in models.items():
            engine = self.engines[name] = Engine(crew, limits, partial(self.metrics.image, name))
            self.metrics.watch(name, partial(getattr, engine, "unanswered"), partial(getattr, engine, "working"))

    @property
    def ready(self) -> bool:
        return not self.draining and all(engine.ready for engine in self.engines.values())

    @property
    def failure(self) -> MaskRCNNError | None:
        """Why the server cannot go on."""
        return next((engine.failure for engine in self.engines.values() if engine.failure), None)

    def name(self, wanted: str | None) -> str:
        """The name of a model.

        Raises:
            RefusalError: 404 for a name that no model has.
        """
        if wanted is None:
            return next(iter(self.engines))
        if wanted not in self.engines:
            raise RefusalError(404, f"no model {wanted!r}; there are: {', '.join(self.engines)}")
        return wanted

    async def ask(self, request: Request, name: str, body: bytes, then: Callable[[np.ndarray, Instances], T]) -> T:
        """What `then` makes of the encoded image in `body`. It may be called in another process: a function at the top
        level of a module, or a `partial` of one.

        Raises:
            RefusalError: as `Engine.ask` and `image_of` do.
        """
        engine = self.engines[name]
        read = partial(image_of, body, self.limits.max_pixels, engine.crew.config.image.channel_names)
        answer: T = await while_connected(request, engine.ask(read, then))
        return answer


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusalError(CLIENT_CLOSED_REQUEST, "the client has closed the connection")
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()


async def _disconnected(request: Request) -> Any:
    while (await request.receive())["type"] != "http.disconnect":
        pass
