"""The routes of our own protocol: predictions, the models, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskrcnn import __version__
from maskrcnn.serve import page_routes
from maskrcnn.serve.answers import PICTURES, Format, answer
from maskrcnn.serve.bodies import image_and_fields
from maskrcnn.serve.engine import Crew
from maskrcnn.serve.guard import Guard
from maskrcnn.serve.problems import RefusalError, answer_errors, in_words
from maskrcnn.serve.protocols import cvat, inference_protocol, label_studio
from maskrcnn.serve.reference_page import reference_page
from maskrcnn.serve.service import Service
from maskrcnn.serve.settings import Labelling, Limits

IMAGE_OR_FORM = {
    "requestBody": {
        "required": True,
        "description": "The image (JPEG, PNG, WebP, TIFF or BMP), or a form with it as its one file.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
        },
    }
}

NO_TOOLS = Labelling()  # no image is fetched


class Options(BaseModel):
    """How an image is answered: as parameters of the query, or as fields of the form."""

    model_config = ConfigDict(extra="forbid")

    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    format: Format = "coco"
    model: str | None = None


def build_app(
    models: Mapping[str, Crew], limits: Limits, token: str | None = None, labelling: Labelling = NO_TOOLS
) -> FastAPI:
    """The application for one or more models by name. Without a token, it answers everybody."""
    service = Service(models, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in service.engines.values():
            engine.start()
        yield
        for engine in service.engines.values():
            engine.close()

    app = FastAPI(title="maskrcnn", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    answer_errors(app)
    _add_predictions(app, service)
    _add_health(app, service)
    page_routes.add_routes(app)
    inference_protocol.add_routes(app, service)
    label_studio.add_routes(app, service, labelling)
    cvat.add_routes(app, service, labelling)
    app.add_middleware(Guard, token=token, service=service)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", openapi_extra=IMAGE_OR_FORM, summary="Find the objects of an image")
    async def predict(request: Request, query: Annotated[Options, Query()]) -> Response:
        body = await service.intake.read(request)
        image, fields = image_and_fields(request.headers.get("content-type", ""), body)
        try:
            options = Options.model_validate({**query.model_dump(exclude_unset=True), **fields})
        except ValidationError as error:
            raise RefusalError(400, in_words(error.errors())) from None
        name = service.name(options.model)
        usual = service.engines[name].crew.thresholds if options.format in PICTURES else 0.0
        least = usual if options.min_score is None else options.min_score
        then = partial(answer, options.format, least=least, model=name)
        made = await service.ask(request, name, image, then)
        return Response(made.body, media_type=made.media_type)

    @app.get("/v1/model", summary="The models, their categories and the origin of their weights")
    async def model() -> dict[str, Any]:
        return {"models": [_described(name, engine.crew) for name, engine in service.engines.items()]}


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", summary="200 while the process answers")
    @app.get("/health", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "UP", "model_class": "maskrcnn"}  # as Label Studio expects it

    @app.get("/health/ready", summary="200 when images can be sent, 503 while the server starts or ends")
    async def ready() -> Response:
        if not service.ready:
            raise RefusalError(503, "the server is ending" if service.draining else "the server is starting")
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="Counts and times for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.media_type)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return reference_page(app.openapi())


def _described(name: str, model: Crew) -> dict[str, Any]:
    detect = model.config.model.detect
    return {
        "name": name,
        "categories": [{"id": category.id, "name": category.name} for category in model.config.categories],
        "masks": model.config.model.mask_head is not None,
        "keypoints": model.config.model.keypoint_head is not None,
        "score_threshold": detect.score_threshold,
        "thresholds": list(model.thresholds),
        "precision": model.precision,
        "max_detections": detect.max_detections,
        "provenance": model.provenance,
    }
