"""Counts and times of the server, in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Each server has its own registry, so that several can live in one process."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "maskrcnn_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "maskrcnn_request_seconds", "Time of requests.", ("route",), buckets=SECONDS, registry=self._registry
        )
        self._image_seconds = Histogram(
            "maskrcnn_image_seconds", "Time of each image.", ("model",), buckets=SECONDS, registry=self._registry
        )
        self._objects = Counter("maskrcnn_objects", "Objects found.", ("model",), registry=self._registry)
        self._unanswered = Gauge(
            "maskrcnn_unanswered", "Requests that wait or are computed.", ("model",), registry=self._registry
        )
        self._workers = Gauge(
            "maskrcnn_workers", "Processes or threads that compute.", ("model",), registry=self._registry
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def image(self, model: str, objects: int, seconds: float) -> None:
        self._image_seconds.labels(model).observe(seconds)
        self._objects.labels(model).inc(objects)

    def watch(self, model: str, unanswered: Callable[[], float], workers: Callable[[], float]) -> None:
        self._unanswered.labels(model).set_function(unanswered)
        self._workers.labels(model).set_function(workers)

    def text(self) -> bytes:
        return generate_latest(self._registry)
