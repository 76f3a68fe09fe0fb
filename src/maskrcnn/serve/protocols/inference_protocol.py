"""The Open Inference Protocol, version 2 (KServe, Triton, Seldon): tensors by name, as JSON or as bytes behind it."""

from __future__ import annotations

import base64
import binascii
import json
from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError, model_validator

from maskrcnn import __version__
from maskrcnn.serve.problems import RefusalError, in_words
from maskrcnn.serve.protocols.binary_tensors import LENGTH_HEADER, divided, only_element, packed
from maskrcnn.serve.service import Service
from maskrcnn.structures.instances import Instances

INPUTS = [{"name": "image", "datatype": "BYTES", "shape": [1]}]
OUTPUTS: list[dict[str, Any]] = [
    {"name": "size", "datatype": "INT64", "shape": [2]},  # height and width
    {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
    {"name": "scores", "datatype": "FP32", "shape": [-1]},
    {"name": "labels", "datatype": "INT64", "shape": [-1]},
    {"name": "names", "datatype": "BYTES", "shape": [-1]},
    {"name": "masks", "datatype": "BYTES", "shape": [-1]},  # COCO run-length strings
]


class InputParameters(BaseModel):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None  # bytes behind the JSON


class InputTensor(BaseModel):
    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[int], Field(min_length=1, max_length=2)]
    parameters: InputParameters = InputParameters()
    data: Annotated[list[str], Field(min_length=1, max_length=1)] | None = None  # base64 of one encoded image

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if (self.data is None) == (self.parameters.binary_data_size is None):
            raise ValueError("expected either data or binary_data_size")
        return self


class OutputParameters(BaseModel):
    binary_data: bool | None = None


class OutputTensor(BaseModel):
    name: str
    parameters: OutputParameters = OutputParameters()


class Parameters(BaseModel):
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    binary_data_output: bool = False


class InferenceRequest(BaseModel):
    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[OutputTensor] | None = None

    def is_wanted(self, output: str) -> bool:
        return not self.outputs or output in {tensor.name for tensor in self.outputs}

    def is_binary(self, output: str) -> bool:
        """Whether the values of an output lie behind the JSON of the answer."""
        given = {tensor.name: tensor.parameters.binary_data for tensor in self.outputs or ()}.get(output)
        return self.parameters.binary_data_output if given is None else given


def add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v2", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "maskrcnn", "version": __version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="Whether the process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Whether images can be sent")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/v2/models/{name}", summary="The tensors of a model")
    async def metadata(name: str) -> dict[str, Any]:
        tensors = {"inputs": INPUTS, "outputs": OUTPUTS}
        return {"name": service.name(name), "versions": [], "platform": "pytorch", **tensors}

    @app.get("/v2/models/{name}/ready", summary="Whether a model answers")
    async def model_ready(name: str) -> Response:
        ready = service.engines[service.name(name)].ready and not service.draining
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    @app.post("/v2/models/{name}/infer", summary="Find the objects of an image", openapi_extra=_BODY)
    async def infer(name: str, request: Request) -> Response:
        name = service.name(name)
        content, values = divided(await service.intake.read(request), request.headers.get(LENGTH_HEADER))
        asked = _parsed(content)
        then = partial(tensors_of, min_score=asked.parameters.min_score)
        return _answer(name, asked, await service.ask(request, name, _image(asked.inputs[0], values), then))


_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": InferenceRequest.model_json_schema()}}}
}


def _parsed(body: bytes) -> InferenceRequest:
    try:
        return InferenceRequest.model_validate_json(body)
    except ValidationError as error:
        raise RefusalError(400, in_words(error.errors())) from None


def _image(tensor: InputTensor, values: bytes) -> bytes:
    """The encoded image in the input, or in the values behind the JSON."""
    if tensor.data is None:
        return only_element(values, tensor.parameters.binary_data_size or 0)
    try:
        return base64.b64decode(tensor.data[0], validate=True)
    except (binascii.Error, ValueError):
        raise RefusalError(400, "inputs.0.data.0: expected an encoded image in base64") from None


def _answer(name: str, asked: InferenceRequest, tensors: list[dict[str, Any]]) -> Response:
    """The wanted tensors as JSON, and behind it the values of those that were asked for as bytes."""
    outputs, values = [], b""
    for tensor in tensors:
        if not asked.is_wanted(tensor["name"]):
            continue
        if asked.is_binary(tensor["name"]):
            data = packed(tensor)
            values += data
            tensor = {key: value for key, value in tensor.items() if key != "data"}
            tensor["parameters"] = {"binary_data_size": len(data)}
        outputs.append(tensor)
    content = {"model_name": name, **({} if asked.id is None else {"id": asked.id}), "outputs": outputs}
    text = json.dumps(content).encode()
    if not values:
        return Response(text, media_type="application/json")
    return Response(text + values, headers={LENGTH_HEADER: str(len(text))}, media_type="application/octet-stream")


def tensors_of(image: np.ndarray, found: Instances, min_score: float) -> list[dict[str, Any]]:
    """The outputs for the N objects of an image. A model without masks has no tensor `masks`."""
    found = found.with_score(min_score)
    values: dict[str, list[Any]] = {
        "size": list(found.image_hw),
        "boxes": found.boxes.reshape(-1).tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
        "names": list(found.class_names),
    }
    if found.masks is not None:
        values["masks"] = [mask.counts.decode("ascii") for mask in found.masks]
    shape = {"size": [2], "boxes": [len(found), 4]}
    return [
        {
            "name": spec["name"],
            "datatype": spec["datatype"],
            "shape": shape.get(spec["name"], [len(found)]),
            "data": values[spec["name"]],
        }
        for spec in OUTPUTS
        if spec["name"] in values
    ]
