"""An exported ONNX file as a folder of OpenVINO, without a second export."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.export.openvino_graph import write_graph
from maskrcnn.predict.exported import GRAPH


def in_openvino(file: Path, folder: Path) -> Path:
    """The graph of an ONNX file, written as `export --format openvino` writes it; skips a test without OpenVINO.

    Returns:
        The folder.
    """
    pytest.importorskip("openvino")
    write_graph(file, "{}", folder / GRAPH)
    return folder
