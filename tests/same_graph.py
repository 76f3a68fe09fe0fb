"""An exported ONNX file as a folder of OpenVINO, without a second export."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.predict.exported import GRAPH
from maskrcnn.weights.model_file import METADATA_KEY


def in_openvino(file: Path, folder: Path) -> Path:
    """The graph of an ONNX file, written as `export --format openvino` writes it; skips a test without OpenVINO.

    Returns:
        The folder.
    """
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(file)
    model.set_rt_info("{}", [METADATA_KEY])
    openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
    return folder
