"""Graphs that an engine cannot compute, or not in the precision that is asked for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch._inductor

from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.predict.exported import GRAPH, INPUTS, ExportFormat, open_engine
from maskrcnn.weights.model_file import METADATA_KEY, header_of
from small_data import small_config


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_graph_that_the_engine_cannot_compute_is_one_line(form: ExportFormat, tmp_path: Path) -> None:
    onnx, openvino = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["height", "width", 3])
    scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.UINT8, [7])
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [7])
    node = onnx.helper.make_node("Reshape", ["image", "shape"], ["scores"])
    graph = onnx.helper.make_graph([node], "seven numbers", [image], [scores], [shape])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key=METADATA_KEY, value=header_of(small_config(), {}))
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    if form == "openvino":
        graph_in_openvino = openvino.Core().read_model(file)
        graph_in_openvino.set_rt_info(model.metadata_props[0].value, [METADATA_KEY])
        openvino.save_model(graph_in_openvino, tmp_path / "openvino" / GRAPH)
        file = tmp_path / "openvino"
    run = open_engine(file, form, precision="fp32").run
    with pytest.raises(WeightsError, match=r"the engine fails for image \(4, 5, 3\) \(.+\); report this") as caught:
        run({"image": np.zeros((4, 5, 3), np.uint8)})
    assert "\n" not in str(caught.value)


def test_a_graph_without_marks_computes_in_fp32(tmp_path: Path) -> None:
    """Without marks on what stays in fp32, bf16 would place RoIs up to a pixel away."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as op

    from maskrcnn.export.openvino_graph import keep_in_fp32

    for marked in (False, True):
        pixels = op.parameter([1, 3, -1, -1], np.float32, name="pixels")
        pixels.output(0).set_names({"pixels"})
        model = openvino.Model([op.multiply(pixels, op.constant(np.float32(2)))], [pixels])
        model.set_rt_info(header_of(small_config(), {}), [METADATA_KEY])
        if marked:
            keep_in_fp32(model)
        folder = tmp_path / str(marked)
        openvino.save_model(model, folder / GRAPH, compress_to_fp16=False)
        assert open_engine(folder, "openvino", precision="fp32").computes_in == "fp32"
        if marked:
            assert open_engine(folder, "openvino", precision="bf16").computes_in == "bf16"
            continue
        assert open_engine(folder, "openvino").computes_in == "fp32"
        with pytest.raises(ConfigError, match="exported for fp32 alone; choose --precision fp32, or export it anew"):
            open_engine(folder, "openvino", precision="bf16")


def test_a_package_that_fails_while_it_runs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise RuntimeError("run_func_(...) API call failed\nat model_container_runner.cpp, line 153")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: broken)
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as file:
        file.writestr("m/code.wrapper_metadata.json", json.dumps({METADATA_KEY: header_of(small_config(), {})}))
    run = open_engine(tmp_path / "model.pt2", "torch").run
    with pytest.raises(
        WeightsError, match=r"the engine fails for pixels \(1, 3, 96, 96\), .+ call failed at .+; report"
    ):
        run({name: np.zeros((1, 3, 96, 96), np.float32) for name in INPUTS})
    with pytest.raises(
        ConfigError, match=r"takes images that are resized to more than 64 pixels on each side, found 64x96"
    ):
        run({name: np.zeros((1, 3, 64, 96), np.float32) for name in INPUTS})


def test_a_long_reason_of_an_engine_begins_with_a_sentence(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1])
    node = onnx.helper.make_node("Identity", ["image"], ["scores"])
    graph = onnx.helper.make_graph([node], "newer", [image], [onnx.helper.make_empty_tensor_value_info("scores")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 99)]), tmp_path / "newer.onnx")
    with pytest.raises(WeightsError, match=r"cannot be opened \(\.\.\. Current official support .+ is till opset \d+"):
        open_engine(tmp_path / "newer.onnx", "onnx")
