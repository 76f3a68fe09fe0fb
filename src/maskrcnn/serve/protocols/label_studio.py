"""The ML backend protocol of Label Studio (https://labelstud.io): proposals that a person corrects."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, ValidationError

from maskrcnn.data.brush import brush_codes
from maskrcnn.errors import DataError
from maskrcnn.files.xml_file import parse_xml
from maskrcnn.ops.outlines import FEW_CORNERS
from maskrcnn.serve.engine import Crew
from maskrcnn.serve.problems import CLIENT_CLOSED_REQUEST, RefusalError, in_words
from maskrcnn.serve.protocols.image_sources import ImageSources
from maskrcnn.serve.service import Service
from maskrcnn.serve.settings import Labelling
from maskrcnn.structures.instances import Instances
from maskrcnn.weights.model_file import header_of

LOG = logging.getLogger("maskrcnn.serve")
TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"


class Task(BaseModel):
    id: int | str | None = None
    data: dict[str, Any]


class PredictRequest(BaseModel):
    tasks: list[Task]
    label_config: str


@dataclass(frozen=True)
class Control:
    """The part of a project's interface that gets the proposals.

    Attributes:
        kind: BrushLabels, PolygonLabels or RectangleLabels.
        labels: its labels.
        image: the name of the image that is labelled.
        key: where a task has the address of that image.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    image: str
    key: str

    def label_of(self, category: str, categories: int) -> str | None:
        """The label for a category of the model: the one of its name, or the only one for the only category."""
        if len(self.labels) == categories == 1:
            return self.labels[0]
        return next((label for label in self.labels if label.casefold() == category.casefold()), None)


def add_routes(app: FastAPI, service: Service, labelling: Labelling) -> None:
    name = service.name(None)
    crew = service.engines[name].crew
    version = version_of(name, crew)
    sources = ImageSources(
        labelling.label_studio, os.environ.get(TOKEN_VARIABLE), labelling.image_hosts, service.limits
    )

    @app.post("/setup", summary="Label Studio: connects a project")
    async def setup(request: Request) -> dict[str, str]:
        await service.intake.read(request)
        return {"model_version": version}

    @app.get("/versions", summary="Label Studio: the versions of the model")
    async def versions() -> dict[str, list[str]]:
        return {"versions": [version]}

    @app.post("/webhook", status_code=201, summary="Label Studio: takes note of an event, and does nothing")
    async def webhook(request: Request) -> dict[str, str]:
        await service.intake.read(request)
        return {}

    @app.post("/predict", summary="Label Studio: proposals for tasks", openapi_extra=_BODY)
    async def predict(request: Request) -> dict[str, Any]:
        try:
            asked = PredictRequest.model_validate_json(await service.intake.read(request))
        except ValidationError as error:
            raise RefusalError(400, in_words(error.errors())) from None
        control = control_of(asked.label_config)
        propose = partial(regions, control=control, least=labelling.least(crew.thresholds))
        results = await _results(request, service, sources, asked.tasks, control, propose)
        return {"results": [{**result, "model_version": version} for result in results]}


def version_of(name: str, crew: Crew) -> str:
    """The version that Label Studio notes for proposals. It asks for new ones only if the version is a new one, so
    another training of one name must have another version."""
    return f"{name}-{hashlib.sha256(header_of(crew.config, crew.provenance).encode()).hexdigest()[:8]}"


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PredictRequest.model_json_schema(ref_template="#/$defs/{model}")}},
    }
}


async def _results(
    request: Request,
    service: Service,
    sources: ImageSources,
    tasks: list[Task],
    control: Control,
    propose: Callable[[np.ndarray, Instances], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """One entry a task. If all tasks fail, the first failure is the answer.

    The entry of a task that fails has `error` in place of `result`. Label Studio logs such an entry, stores nothing and
    asks again. It would store an empty `result` as a proposal without objects.
    """
    name, results, failures = service.name(None), list[dict[str, Any]](), []
    for task in tasks:
        try:
            body = await asyncio.to_thread(sources.fetch, _address(task, control))
            found = await service.ask(request, name, body, propose)
        except RefusalError as error:
            if error.status == CLIENT_CLOSED_REQUEST:  # nobody waits for the other tasks either
                raise
            failures.append(error)
            results.append({"error": str(error)})
            LOG.warning("task failed", extra={"fields": {"task": task.id, "reason": str(error)}})
            continue
        scores = [entry["score"] for entry in found]
        score = sum(scores) / len(scores) if scores else 0.0
        results.append({"result": found, "score": score})
    if tasks and len(failures) == len(tasks):
        raise failures[0]
    return results


def _address(task: Task, control: Control) -> str:
    address = task.data.get(control.key)
    if not isinstance(address, str):
        raise RefusalError(400, f"task {task.id}: expected the address of an image as {control.key}")
    return address


def control_of(label_config: str) -> Control:
    """The first control of a project's interface that takes masks, or else boxes.

    Raises:
        RefusalError: 400 for XML that is malformed, or has no such control with labels and an image.
    """
    try:
        root = parse_xml(label_config.encode("utf-8", "replace"), "label_config", "the interface of a project")
    except DataError as error:
        raise RefusalError(400, str(error)) from None
    for kind in ("BrushLabels", "PolygonLabels", "RectangleLabels"):
        for control in root.iter(kind):
            labels = tuple(label.get("value", "") for label in control.iter("Label"))
            image = _image(root, control.get("toName", ""))
            if labels and image is not None:
                key = image.get("value", "").removeprefix("$")
                return Control(control.get("name", ""), kind, labels, image.get("name", ""), key)
    raise RefusalError(
        400, "label_config: expected BrushLabels, PolygonLabels or RectangleLabels with labels and their Image"
    )


def _image(root: Element, name: str) -> Element | None:
    return next((image for image in root.iter("Image") if image.get("name") == name), None)


def regions(
    image: np.ndarray, found: Instances, control: Control, least: float | Sequence[float]
) -> list[dict[str, Any]]:
    """The objects as regions of Label Studio. Objects of categories that the project has no label for are left out.

    Raises:
        RefusalError: 400 if no category of the model has a label, or the control needs masks that the model lacks.
    """
    categories = [category.name for category in found.categories] or sorted(set(found.class_names))
    labels = {category: control.label_of(category, len(categories)) for category in categories}
    if categories and not any(labels.values()):
        raise RefusalError(
            400, f"expected labels of the model ({', '.join(categories)}), found {', '.join(control.labels)}"
        )
    if found.masks is None and control.kind != "RectangleLabels":
        raise RefusalError(400, "the model finds no masks: expected RectangleLabels")
    chosen = found.with_score(least)
    entries = []
    for i, category in enumerate(chosen.class_names):
        if (label := labels.get(category)) is not None:
            entries += [_region(control, label, chosen, i, value) for value in _values(control.kind, chosen, i)]
    return entries


def _region(control: Control, label: str, found: Instances, i: int, value: dict[str, Any]) -> dict[str, Any]:
    height, width = found.image_hw
    kind = control.kind.lower()
    return {
        "id": secrets.token_hex(5),
        "from_name": control.name,
        "to_name": control.image,
        "type": kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": float(found.scores[i]),
        "value": {**value, kind: [label]},
    }


def _values(kind: str, found: Instances, i: int) -> list[dict[str, Any]]:
    """The shapes of object i, in percent of the image."""
    percent = 100 / np.array(found.image_hw[::-1])
    if kind == "RectangleLabels" or found.masks is None:
        x1, y1, x2, y2 = (found.boxes[i] * np.tile(percent, 2)).tolist()
        return [{"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}]
    mask = found.masks[i]
    if kind == "BrushLabels":
        return [{"format": "rle", "rle": brush_codes(mask)}] if mask.area else []
    parts = mask.outer_polygons(FEW_CORNERS)
    return [{"points": (part * percent).tolist(), "closed": True} for part in parts if len(part) > 2]
