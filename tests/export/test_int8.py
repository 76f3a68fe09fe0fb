"""Which layers of a graph become int8, and a trained model in int8 in both engines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import maskrcnn
from maskrcnn.cli import main
from maskrcnn.errors import ConfigError, MissingPackageError
from maskrcnn.export import int8, save
from maskrcnn.export.check import DifferentError
from maskrcnn.export.int8 import (
    Calibration,
    import_nncf,
    int8_nodes,
    last_layers,
    make_unsigned,
    quantise_early,
    share_quantised,
    write_int8,
)
from maskrcnn.export.save import export_model
from maskrcnn.predict.exported import ExportFormat
from maskrcnn.training.loop import train
from maskrcnn.weights.model_file import METADATA_KEY
from small_data import small_config, write_small
from small_network import lively_network, network_config

NAMES = {"onnx": "m.onnx", "openvino": "m"}


def graph() -> onnx.GraphProto:
    """Two layers and a sum, a head of two layers behind RoIAlign, and arithmetic that is none."""
    nodes = [
        helper.make_node("Sub", ["pixels", "mean"], ["normal"], "normalise"),
        helper.make_node("Conv", ["normal", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], "second"),
        helper.make_node("Add", ["b", "c"], ["d"], "shortcut"),
        helper.make_node("Conv", ["d", "w"], ["logits"], "objectness"),
        helper.make_node("TopK", ["logits", "k"], ["scores", "index"], "best"),
        helper.make_node("RoiAlign", ["d", "boxes", "index"], ["rois"], "pooled"),
        helper.make_node("Reshape", ["rois", "shape"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "w"], ["hidden"], "hidden"),
        helper.make_node("Relu", ["hidden"], ["active"], "active"),
        helper.make_node("Gemm", ["active", "w"], ["deltas"], "deltas"),
        helper.make_node("Add", ["deltas", "boxes"], ["moved"], "moved"),
        helper.make_node("MatMul", ["moved", "active"], ["product"], "product of two results"),
    ]
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in ("w", "mean", "k", "shape")]
    return helper.make_graph(nodes, "g", [], [], constants)


def test_layers_with_constant_weights_and_what_lies_between_them_become_int8() -> None:
    inside = int8_nodes(graph())
    assert inside == {"first", "relu", "second", "shortcut", "objectness", "hidden", "active", "deltas"}
    assert last_layers(graph(), inside) == {"objectness", "deltas"}


def quantised_layers() -> onnx.ModelProto:
    """Two convolutions as NNCF leaves them: the map between them is quantised for one reader, in float for another."""

    def pair(name: str, zero: str = "signed") -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "step", zero], [f"{name}_q"], f"quantise {name}"),
            helper.make_node("DequantizeLinear", [f"{name}_q", "step", zero], [f"{name}_d"], f"dequantise {name}"),
        ]

    nodes = [
        *pair("x"),
        helper.make_node("DequantizeLinear", ["w", "step", "none"], ["w_d"], "weight"),
        helper.make_node("Conv", ["x_d", "w_d"], ["map"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Neg", ["map"], ["early"], "reads the map before it is quantised"),
        *pair("map"),
        helper.make_node("Conv", ["map_d", "w_d"], ["late"], "second", pads=[1, 1, 1, 1]),
    ]
    weight = np.random.default_rng(0).integers(-50, 50, (4, 4, 3, 3)).astype(np.int8)
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in {
            "w": weight,
            "step": np.float32(0.02),
            "signed": np.int8(-3),
            "none": np.int8(0),
        }.items()
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "early", "late")]
    inner = helper.make_tensor_value_info("map_q", TensorProto.INT8, [1, 4, 8, 8])
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], constants, value_info=[inner])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    x = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def test_all_consumers_of_a_layer_take_its_quantised_values() -> None:
    model = quantised_layers()
    early, late = run(model)
    share_quantised(model.graph, {"first", "second"})
    onnx.checker.check_model(model)  # a node stands behind what it takes
    readers = {node.name: list(node.input) for node in model.graph.node}
    assert readers["reads the map before it is quantised"] == ["map_d"]
    assert readers["quantise map"][0] == "map"
    shared_early, shared_late = run(model)
    np.testing.assert_array_equal(shared_late, late)
    assert (shared_early != early).any()
    inside = np.abs(early) < 120 * 0.02
    assert np.abs(shared_early - early)[inside].max() <= 0.0101  # half a step

    apart = quantised_layers()
    share_quantised(apart.graph, {"second"})
    assert apart == quantised_layers()


def moved_before_a_layer() -> onnx.ModelProto:
    """Two results that are joined, sorted and turned in float, then quantised for a layer. One is read elsewhere."""
    nodes = [
        helper.make_node("Neg", ["x"], ["a"], "left"),
        helper.make_node("Abs", ["x"], ["b"], "right"),
        helper.make_node("Concat", ["a", "b"], ["joined"], "join", axis=0),
        helper.make_node("Gather", ["joined", "order"], ["sorted"], "sort"),
        helper.make_node("Transpose", ["sorted"], ["turned"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("QuantizeLinear", ["turned", "step", "zero"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["late"], "dequantise"),
        helper.make_node("Neg", ["b"], ["early"], "reads a result in float"),
    ]
    values = {"step": np.float32(0.02), "zero": np.int8(-3), "order": np.array([1, 0])}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    shapes = {"x": [1, 4, 8, 8], "early": [1, 4, 8, 8], "late": [2, 8, 8, 4]}
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inner = helper.make_tensor_value_info("joined", TensorProto.FLOAT, [2, 4, 8, 8])
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], constants, value_info=[inner])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_bytes_are_moved_and_not_floats() -> None:
    model = moved_before_a_layer()
    before = run(model)
    quantise_early(model.graph)
    onnx.checker.check_model(model)
    for old, new in zip(before, run(model), strict=True):
        np.testing.assert_array_equal(new, old)
    nodes = {node.name: node for node in model.graph.node}
    assert "quantise" not in nodes
    quantised = {node.output[0]: node.input[0] for node in nodes.values() if node.op_type == "QuantizeLinear"}
    assert [quantised[name] for name in nodes["join"].input] == ["a", "b"]
    assert nodes["reads a result in float"].input[0] == "b"

    model = moved_before_a_layer()
    model.graph.node.append(helper.make_node("Abs", ["turned"], ["floats"], "reads what was moved in float"))
    kept = onnx.ModelProto.FromString(model.SerializeToString())
    quantise_early(model.graph)
    assert model == kept


def test_unsigned_activations_stand_for_the_same_values() -> None:
    model = quantised_layers()
    before = run(model)
    make_unsigned(model.graph)
    onnx.checker.check_model(model, full_check=True)
    types = {constant.name: constant.data_type for constant in model.graph.initializer}
    assert types["signed"] == TensorProto.UINT8
    assert types["w"] == types["none"] == TensorProto.INT8
    for old, new in zip(before, run(model), strict=True):
        np.testing.assert_array_equal(new, old)


def test_more_images_than_needed_are_taken_evenly() -> None:
    files = [Path(f"{n}.png") for n in range(1000)]
    chosen = [files.index(file) for file in Calibration(files).chosen]
    assert len(chosen) == 300
    assert set(np.diff(chosen)) == {3, 4}
    assert list(Calibration(files[:301]).chosen) == files[:300]
    assert list(Calibration(files[:300]).chosen) == files[:300]


def test_too_few_images_and_no_nncf_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="int8 needs 8 or more images that can be read, and better 64, found 7"):
        Calibration([Path(f"{n}.png") for n in range(7)])
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingPackageError, match="needs nncf, which is missing: pip install"):
        import_nncf()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_that_costs_too_much_tries_float_heads_and_leaves_no_file(
    form: ExportFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_float: list[set[str]] = []

    def quantize(model: onnx.ModelProto, data: Any, ignored_scope: dict[str, Any], **other: Any) -> onnx.ModelProto:
        in_float.append(set(ignored_scope["names"]))
        return model

    fake = SimpleNamespace(quantize=quantize, Dataset=list, IgnoredScope=dict)
    monkeypatch.setattr(int8, "import_nncf", lambda: (onnx, fake))
    monkeypatch.setattr(save, "require_packages", lambda *args, **kwargs: None)
    monkeypatch.setattr(int8, "_Inputs", lambda calibration, config: [])
    monkeypatch.setattr(save, "_write_onnx", lambda *args, **kwargs: onnx.save(helper.make_model(graph()), args[3]))
    monkeypatch.setattr(save, "open_engine", lambda *args, **kwargs: SimpleNamespace(run=None))
    monkeypatch.setattr(save, "check", lambda *args, **kwargs: None)
    monkeypatch.setattr(save, "write_graph", lambda onnx_file, header, path: None)
    judged: list[Path] = []

    def objection(path: Path) -> str:
        judged.append(path)
        return "AP of masks falls"

    config = network_config()
    calibration = Calibration([Path("a.png")] * 8, objection)
    with pytest.raises(DifferentError, match="even with the last layers of the heads in float: AP of masks falls"):
        export_model(lively_network(config), config, {}, tmp_path / NAMES[form], form, calibration=calibration)
    assert len(judged) == 2
    assert in_float[1] - in_float[0] == {"objectness", "deltas"}
    assert list(tmp_path.iterdir()) == []


def test_images_in_which_nothing_is_found_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quantize(model: onnx.ModelProto, data: Any, **other: Any) -> None:
        raise RuntimeError("Statistics were not collected for the node node_roi_align_1")

    fake = SimpleNamespace(quantize=quantize, Dataset=list, IgnoredScope=dict, InternalError=RuntimeError)
    monkeypatch.setattr(int8, "import_nncf", lambda: (onnx, fake))
    monkeypatch.setattr(int8, "_Inputs", lambda calibration, config: [])
    onnx.save(helper.make_model(graph()), tmp_path / "m.onnx")
    calibration = Calibration([Path("a.png")] * 8)
    with pytest.raises(ConfigError, match="--calibrate: expected images in which the model finds objects, found 8 in"):
        write_int8(tmp_path / "m.onnx", small_config(), calibration, lambda: tmp_path / "m.onnx", unsigned=True)


@pytest.mark.slow
def test_a_trained_model_keeps_its_ap_in_int8_in_both_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, val = write_small(tmp_path, "train", 16), write_small(tmp_path, "val", 16, seed=1)
    (tmp_path / "train" / "broken.png").write_bytes(b"no image")
    config = small_config(steps=60, batch_size=4, warmup_steps=10, checkpoint_every=60, learning_rate=3e-3)
    model = train(config, data, out=tmp_path / "run").model
    out = tmp_path / "int8.onnx"
    words = ["--precision", "int8", "--calibrate", str(tmp_path / "train"), "--data", str(val)]
    words += ["--max-drop", "0.15"]  # a network of eight channels loses more than others
    capsys.readouterr()
    assert main(["export", "--model", str(model), *words, str(out), "--json"]) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)["int8"]
    assert said["calibrated"] == 16
    assert "skipped: " in printed.err
    assert said["before"]["masks"]["AP"] > 0.2
    stored = onnx.load(out)
    weights = [weight for weight in stored.graph.initializer if weight.data_type == TensorProto.INT8]
    assert sum(len(weight.raw_data) for weight in weights) > 100_000
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in stored.graph.node}

    openvino = pytest.importorskip("openvino")
    graph_in_openvino = openvino.Core().read_model(out)
    graph_in_openvino.set_rt_info(stored.metadata_props[0].value, [METADATA_KEY])
    openvino.save_model(graph_in_openvino, tmp_path / "openvino" / "model.xml", compress_to_fp16=False)
    for path in (out, tmp_path / "openvino"):
        figures = maskrcnn.evaluate(maskrcnn.load(path, precision="fp32"), val).figures
        for kind, before in said["before"].items():
            assert figures[kind]["AP"] >= before["AP"] - 0.15, (path, kind)
