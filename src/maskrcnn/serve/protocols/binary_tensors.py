"""The extension `binary_tensor_data` of the Open Inference Protocol, which Triton's clients use by default: values of
tensors lie behind the JSON of a body, and a header says how long the JSON is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from maskrcnn.serve.problems import RefusalError

LENGTH_HEADER = "Inference-Header-Content-Length"
DTYPES = {"FP32": "<f4", "INT64": "<i8"}
PREFIX = 4  # bytes of the length in front of each element of the type BYTES


def divided(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a body and the values behind it.

    Args:
        json_length: the value of `LENGTH_HEADER`; None if all of the body is JSON.

    Raises:
        RefusalError: 400 for a length that is no number or longer than the body.
    """
    if json_length is None:
        return body, b""
    # `int` would fail for thousands of digits.
    if not re.fullmatch("[0-9]{1,18}", json_length) or int(json_length) > len(body):
        raise RefusalError(400, f"{LENGTH_HEADER}: expected up to {len(body)} bytes, found {json_length[:20]!r}")
    return body[: int(json_length)], body[int(json_length) :]


def only_element(values: bytes, size: int) -> bytes:
    """The one element of a tensor of the type BYTES, which takes `size` bytes with its length in front.

    Raises:
        RefusalError: 400 for another size or other elements.
    """
    length = int.from_bytes(values[:PREFIX], "little")
    if len(values) < PREFIX or size != len(values) or length != len(values) - PREFIX:
        raise RefusalError(400, f"inputs.0: expected {size} bytes with one element and its length, found others")
    return values[PREFIX:]


def packed(tensor: dict[str, Any]) -> bytes:
    """The values of a tensor as bytes."""
    if tensor["datatype"] == "BYTES":
        encoded = [text.encode() for text in tensor["data"]]
        return b"".join(len(text).to_bytes(PREFIX, "little") + text for text in encoded)
    return np.array(tensor["data"], DTYPES[tensor["datatype"]]).tobytes()
