"""Exported networks in their engines beside PyTorch's, and files that are none."""

from __future__ import annotations

import copy
import json
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import maskrcnn
from maskrcnn.cli import main
from maskrcnn.config import Category, Channel, Config, DetectConfig, ImageConfig
from maskrcnn.config.conventions import DETECTRON, MATTERPORT, MMDETECTION, OURS, TORCHVISION, PixelRules
from maskrcnn.errors import ConfigError, MissingPackageError, WeightsError
from maskrcnn.export import check as comparison
from maskrcnn.export import save
from maskrcnn.export.check import DifferentError, FoundObjects, check, pairs_of
from maskrcnn.export.limits import require_exportable
from maskrcnn.export.save import export_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.boxes import whole_images
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.predict import predictor as opening
from maskrcnn.predict.exported import INSTALL, Arrays, ExportFormat, OpenedGraph, open_engine
from maskrcnn.structures.images import ImageBatch
from maskrcnn.weights.model_file import METADATA_KEY, header_of
from same_graph import in_openvino
from same_objects import assert_same_objects
from small_data import write_small
from small_network import lively_network, network_config
from variants import BASE, MASK, ONE_LEVEL, VARIANTS


def lively_predictor(divisor: int = 32, **settings: Any) -> Predictor:
    config = network_config(**{"num_classes": 2, **settings})
    image = replace(config.image, divisor=divisor)
    config = replace(config, image=image, categories=(Category(3, "blue"), Category(7, "red")))
    return Predictor(TorchBackend(lively_network(config).eval()), config, {"steps": 5})


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "export.md"
CHANNELS = tuple(Channel(f"c{i}", "range", low=0, high=1000, mean=40, std=20) for i in range(5))
PICTURES = [picture(64, 96), picture(70, 60), picture(1, 1), picture(300, 40), picture(120, 200)]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    """A network and its ONNX file. Of all networks, one without a pyramid is traced fastest."""
    folder = tmp_path_factory.mktemp("export")
    predictor = lively_predictor(neck="c5", anchors=ONE_LEVEL)
    predictor.save(folder / "model.safetensors")
    assert main(["export", "--model", str(folder / "model.safetensors"), str(folder / "model.onnx")]) == 0
    return predictor, folder / "model.onnx"


@pytest.mark.slow
def test_a_loaded_file_predicts_evaluates_and_refuses(
    small: tuple[Predictor, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One test, because each process of a parallel run would export the network anew.
    predictor, file = small
    loaded = maskrcnn.load(file, threads=1)
    assert (loaded.config, loaded.provenance) == (predictor.config, predictor.provenance)
    for found, expected in zip(loaded.predict(PICTURES, 2), predictor.predict(PICTURES, 2), strict=True):
        assert_same_objects(found, expected)
    assert sum(map(len, loaded.predict(PICTURES))) > 20
    (few,), (all_of_them,) = loaded.with_detections(3).predict(PICTURES[0]), loaded.predict(PICTURES[0])
    np.testing.assert_array_equal(few.boxes, all_of_them.boxes[:3])

    data = write_small(tmp_path, "images", 3)
    aps = []
    for model in (file, file.with_name("model.safetensors")):
        words = ["--model", str(model), "--precision", "fp32"]
        capsys.readouterr()
        assert main(["evaluate", *words, "--data", str(data), "--threads", "2", "--json"]) == 0
        aps.append(
            {
                name: round(value, 4)
                for name, value in json.loads(capsys.readouterr().out)["masks"].items()
                if isinstance(value, float)
            }
        )
        assert main(["predict", str(tmp_path / "images"), *words, "--out", str(tmp_path / "out")]) == 0
    assert aps[0] == aps[1]

    stored = onnx.load(file)
    assert [part.name for part in stored.graph.input] == ["pixels", "sizes_hw", "original_hw", "scale_xy"]
    assert [part.name for part in stored.graph.output] == ["boxes", "scores", "labels", "masks", "runs"]
    sides = [dimension.dim_value for dimension in stored.graph.input[0].type.tensor_type.shape.dim]
    assert sides == [0, 3, 0, 0], "batch, height and width are names"
    convolutions = [node for node in stored.graph.node if node.op_type == "Conv"]
    weights = {weight.name for weight in stored.graph.initializer}
    assert all(set(node.input[1:]) <= weights for node in convolutions), "norms are folded"

    lower = replace(predictor.config.model.detect, score_threshold=0.001)
    config = replace(loaded.config, model=replace(loaded.config.model, detect=lower))
    with pytest.raises(ConfigError, match=r"score_threshold 0\.02 .* found a call with 0\.5, 0\.001"):
        replace(loaded, config=config).predict(PICTURES[0])
    with pytest.raises(ConfigError, match="expected a TorchBackend"):
        loaded.save(tmp_path / "m.safetensors")
    for given, message in (
        ({"compile": True}, "found compile True"),
        ({"device": "cuda"}, "cuda"),
        ({"threads": 0}, "expected 1 thread or more"),
        ({"precision": "bf16"}, "ONNX Runtime computes this file in fp32"),
    ):
        with pytest.raises(ConfigError, match=message):
            maskrcnn.load(file, **given)

    assert_refused(tmp_path / "newer.onnx", stored, '{"format": 99, "config": {}}', "found model file format 99")
    header = stored.metadata_props[0].value
    assert_refused(
        tmp_path / "borrowed.onnx",
        another_network(),
        header,
        r"found one that takes images \(any x 3\) and gives out \(any",
    )
    assert_refused(tmp_path / "opset.onnx", another_network(opset=99), header, "till opset .* upgrade the engine")
    assert_refused(tmp_path / "other.onnx", stored, None, "found one with its inputs but without them, perhaps because")
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match=r"cut\.onnx: expected a whole exported network, [^:]*\(Load model"):
        maskrcnn.load(tmp_path / "cut.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match="ONNX Runtime, which is missing: pip install"):
        maskrcnn.load(file)


def test_an_openvino_folder_without_all_its_bytes_is_one_line(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    onnx.save(another_network(), tmp_path / "other.onnx")
    openvino.save_model(openvino.Core().read_model(tmp_path / "other.onnx"), tmp_path / "m" / "model.xml")
    graph, weights = tmp_path / "m" / "model.xml", tmp_path / "m" / "model.bin"

    def refused(message: str) -> None:
        with pytest.raises(WeightsError, match=message) as raised:
            maskrcnn.load(tmp_path / "m")
        assert "\n" not in str(raised.value)
        assert "src/" not in str(raised.value)

    refused(r"expected an OpenVINO network .* found one that takes images \(any x 3\) and gives out \(any x 3\)")
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-4])
    refused(f"model.bin: expected the {size:,} bytes .* found {size - 4:,}; copy both files")
    weights.unlink()
    refused("model.bin: expected the .* found no such file; copy both files")
    graph.write_text(graph.read_text()[:-30])
    refused("model.xml: expected a whole graph, found one that breaks off")
    weights.touch()
    for begun in ("<ne", ""):
        graph.write_text(begun)
        refused("model.xml: expected a whole graph, found one that breaks off")
    graph.unlink()
    refused("model.xml: expected the graph that belongs to model.bin, found no such file; copy both files")


def test_an_openvino_network_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name, content in {"net.xml": b'<?xml version="1.0"?>\n<net name="m">', "net.bin": b"\0" * 99}.items():
        (tmp_path / "m" / name).write_bytes(content)
    hint = f"for prediction give {tmp_path / 'm' / 'net.xml'}, else the checkpoint that it was exported from"
    for given, found in (
        ("net.bin", "the weights of the OpenVINO network"),
        ("", "a folder with the OpenVINO network"),
    ):
        with pytest.raises(WeightsError) as raised:
            maskrcnn.load(tmp_path / "m" / given)
        assert str(raised.value).endswith(f"found {found} net.xml; {hint}")


def another_network(opset: int = 18) -> onnx.ModelProto:
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["s77", 3]) for name in ("images", "out")
    ]
    weight = onnx.numpy_helper.from_array(np.ones((1, 3), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["images", "w"], ["out"])], "g", values[:1], values[1:], [weight]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)


def assert_refused(path: Path, stored: onnx.ModelProto, header: str | None, message: str) -> None:
    del stored.metadata_props[:]
    if header is not None:
        onnx.helper.set_model_props(stored, {METADATA_KEY: header})
    onnx.save(stored, path)
    with pytest.raises(WeightsError, match=message):
        maskrcnn.load(path)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (VARIANTS["RoIPool"], "rois.op pool"),
        (VARIANTS["adaptive maxima"], "rois.reduce max"),
        (VARIANTS["PointRend"], "mask_head.point_rend"),
        (VARIANTS["deformable"], "backbone.deformable_stages"),
        ({"conventions": MATTERPORT}, r"features.crop_and_resize \(Matterport\)"),
    ],
)
def test_a_part_without_an_operator_is_refused(settings: dict[str, Any], part: str, tmp_path: Path) -> None:
    config = network_config(**settings)
    with pytest.raises(ConfigError, match=f"cannot be exported because of .*{part}: "):
        export_model(lively_network(config), config, {}, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("form", "missing"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_without_the_packages_there_is_the_command_that_installs_them(
    form: ExportFormat, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = network_config()
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "maskrcnn.export.trace", raising=False)
    with pytest.raises(MissingPackageError, match=f"{missing}.*missing: pip install"):
        export_model(lively_network(config), config, {}, tmp_path / ("m.onnx" if form == "onnx" else "m"), form)
    assert INSTALL in "pip install 'maskrcnn[export]'"
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_finds_something_else_is_noticed() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [60, 0, 90, 30], [0, 0, 0, 0]], np.float32)
    theirs = FoundObjects(boxes, np.array([0.9, 0.8, 0.7, 0], np.float32), np.array([0, 1, 0, 0]))
    assert pairs_of(theirs, theirs, 0.05) == [(0, 0), (1, 1), (2, 2)]
    swapped = FoundObjects(*(part[[1, 0, 2, 3]] for part in theirs))
    assert pairs_of(swapped, theirs, 0.05) == [(1, 0), (0, 1), (2, 2)]
    tie = theirs._replace(boxes=boxes + np.array([[0, 0, 2, 2]], np.float32))
    assert pairs_of(tie, theirs, 0.05) == [], "either of two overlapping boxes with one score may be kept"
    for changed in (
        theirs._replace(scores=np.array([0.9, 0.79, 0.7, 0], np.float32)),
        theirs._replace(labels=np.zeros(4, np.int64)),
        theirs._replace(boxes=boxes + 15),
        theirs._replace(scores=np.array([0.9, 0.8, 0, 0], np.float32)),
    ):
        with pytest.raises(DifferentError, match="report this"):
            pairs_of(changed, theirs, 0.05)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_output_that_cannot_be_written_is_refused_at_once(format: ExportFormat, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    config = network_config()
    with pytest.raises(ConfigError, match=r"out: expected a "):
        export_model(lively_network(config), config, {}, tmp_path / "out", format)
    assert (tmp_path / "out" / "mine.txt").exists()


def write_openvino_by(write_graph: Callable[[Path, str, Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of an export to OpenVINO only the writing, by another function."""
    monkeypatch.setattr(save, "write_graph", write_graph)
    monkeypatch.setattr(save, "_write_onnx", lambda *args: None)
    monkeypatch.setattr(save, "open_engine", lambda *args, **kwargs: SimpleNamespace(run=None))
    monkeypatch.setattr(save, "check", lambda *args, **kwargs: None)


def test_a_disk_that_is_full_for_openvino_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_graph(onnx_file: Path, header: str, path: Path) -> None:
        path.parent.mkdir()
        path.with_suffix(".bin").write_text("the beginn")
        raise RuntimeError("basic_ios::clear: iostream error")

    write_openvino_by(write_graph, monkeypatch)
    config = network_config()
    with pytest.raises(ConfigError, match=r"m: OpenVINO cannot write its files; free the space"):
        export_model(lively_network(config), config, {}, tmp_path / "m", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_an_openvino_network_is_written_into_the_working_folder_and_replaces_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = iter(("first", "second"))

    def write_graph(onnx_file: Path, header: str, path: Path) -> None:
        path.parent.mkdir()
        text = next(contents)
        path.write_text(text)
        path.with_suffix(".bin").write_text(text)

    write_openvino_by(write_graph, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".DS_Store").touch()
    config = network_config()
    for text in ("first", "second"):
        export_model(lively_network(config), config, {}, Path(), "openvino")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            ".DS_Store": "",
            "model.xml": text,
            "model.bin": text,
        }


KINDS: dict[str, dict[str, Any]] = {
    "C4 with keypoints": {**VARIANTS["C4 with layers, masks and keypoints"], "divisor": 1},
    "DC5, group norm, softmax": {
        **VARIANTS["DC5"],
        "backbone": replace(BASE.resnet, width=32, norm="group_norm"),
        "mask_head": replace(MASK, channels=32, norm="group_norm", loss="softmax"),
    },
    "cascade with MMDetection's rules": {**VARIANTS["cascade as in MMDetection"], "conventions": MMDETECTION},
    "class-agnostic MLP with torchvision's rules": {**VARIANTS["agnostic MLP masks"], "conventions": TORCHVISION},
    "keypoints with Detectron's rules": {**VARIANTS["keypoints"], "conventions": DETECTRON},
    "batch norm, no masks": {"backbone": replace(BASE.resnet, norm="batch_norm"), "mask_head": None},
    "nothing found": {
        **VARIANTS["C5"],
        "mask_head": replace(MASK, channels=32, norm="group_norm"),
        "detect": DetectConfig(score_threshold=0.999),
    },
}


@pytest.mark.slow
def test_an_export_that_compared_no_object_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lively_predictor(**KINDS["nothing found"]).save(tmp_path / "m.safetensors")
    assert main(["export", "--model", str(tmp_path / "m.safetensors"), str(tmp_path / "m.onnx")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "m.onnx: neither it nor PyTorch finds an object in generated images; compare the two on your data" in said


def test_a_graph_that_resizes_is_opened_whatever_its_neck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = network_config()
    assert config.model.neck == "fpn"
    opened = OpenedGraph(lambda inputs: {}, header_of(config, {}), resizes=True)
    monkeypatch.setattr(opening, "open_engine", lambda *args, **kwargs: opened)
    loaded = opening.load_exported(tmp_path / "m.onnx", "onnx")
    pixels, frame = loaded.prepare(picture(70, 60))
    assert (pixels.shape, frame.input_hw) == ((3, 70, 60), (70, 60))


@pytest.mark.slow
def test_a_graph_that_resizes_takes_an_image_of_any_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = lively_predictor(neck="c5", anchors=ONE_LEVEL)
    predictor.save(tmp_path / "m.safetensors")
    words = ["--model", str(tmp_path / "m.safetensors"), "--with-resize", "--masks", "dense"]
    assert main(["export", *words, str(tmp_path / "m.onnx")]) == 0
    loaded = maskrcnn.load(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for picture, expected in zip(PICTURES, predictor.predict(PICTURES), strict=True):
        assert_same_objects(loaded.predict(picture)[0], expected)
        *_, dense = session.run(["scores", "dense"], {"image": picture})
        assert dense.shape == (len(expected), *picture.shape[:2])
        assert expected.masks is not None
        pixels = expected.masks.dense().sum()
        assert abs(int(dense.sum()) - pixels) <= 1e-3 * pixels
    for found, alone in zip(loaded.predict(PICTURES, 3), loaded.predict(PICTURES), strict=True):
        np.testing.assert_array_equal(found.boxes, alone.boxes)

    program, *_ = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    (tmp_path / "program.py").write_text(program.replace("> 0.5", "> 0.3"))  # random weights are never sure
    Image.fromarray(PICTURES[4]).save(tmp_path / "picture.png")
    monkeypatch.setattr(sys, "argv", ["program.py", str(tmp_path / "m.onnx"), str(tmp_path / "picture.png")])
    capsys.readouterr()
    runpy.run_path(str(tmp_path / "program.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (predictor.predict(PICTURES[4])[0].scores > 0.3).sum() > 0

    run = open_engine(in_openvino(tmp_path / "m.onnx", tmp_path / "openvino"), "openvino", precision="fp32").run
    assert check(run, predictor.network, predictor.config, resize=True).objects > 100
    with pytest.raises(ConfigError, match="resizes images, which needs fp32"):
        open_engine(tmp_path / "openvino", "openvino", precision="bf16")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"image": ImageConfig(channels=CHANNELS)}, "image.channels"),
        ({"conventions": replace(OURS, pixels=PixelRules(kernel="truncated"))}, "pixels.kernel truncated"),
        ({"conventions": replace(OURS, pixels=PixelRules(rounding="half_even"))}, "pixels.rounding half_even"),
    ],
)
def test_what_a_graph_cannot_resize_is_refused(change: dict[str, Any], part: str, tmp_path: Path) -> None:
    config = replace(network_config(), **change)
    with pytest.raises(ConfigError, match=f"no operators for .*{part}.*: export without --with-resize"):
        export_model(lively_network(config), config, {}, tmp_path / "m.onnx", resize=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="int8 is calibrated on resized images: leave out --with-resize"):
        require_exportable(network_config(), resize=True, int8=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_in_both_engines(kind: str, tmp_path: Path) -> None:
    predictor = lively_predictor(**KINDS[kind])
    config = predictor.config
    network = predictor.network
    agreement = export_model(network, config, {}, tmp_path / "model.onnx")
    assert agreement.objects > (0 if kind == "nothing found" else 30) - 1
    folder = in_openvino(tmp_path / "model.onnx", tmp_path / "openvino")
    check(open_engine(folder, "openvino", precision="fp32").run, network, config)
    loaded = maskrcnn.load(tmp_path / "model.onnx")
    for found, expected in zip(loaded.predict(PICTURES, 3), predictor.predict(PICTURES, 3), strict=True):
        assert_same_objects(found, expected)


def test_the_engine_of_a_model_of_channels_is_compared_on_its_channels() -> None:
    base = lively_predictor(neck="c5", anchors=ONE_LEVEL).config
    config = replace(base, image=replace(base.image, channels=CHANNELS))
    network = lively_network(config).eval()
    asked: list[tuple[Any, ...]] = []

    def run(inputs: Arrays) -> Arrays:
        asked.append((inputs["pixels"].shape[1], inputs["pixels"].dtype))
        return run_as_an_engine(network, config, inputs)

    assert check(run, network, config).objects > 0
    assert set(asked) == {(5, np.dtype(np.float32))}


def run_as_an_engine(network: MaskRCNN, config: Config, inputs: Arrays) -> Arrays:
    pixels, sizes = torch.from_numpy(inputs["pixels"]), torch.from_numpy(inputs["sizes_hw"])
    found = network.detect(ImageBatch(pixels, sizes, whole_images(sizes), ()), config.model.detect)
    assert found.mask_probs is not None
    parts = {"boxes": 2 * found.boxes, "scores": found.scores, "labels": found.labels, "masks": found.mask_probs}
    return {name: part.numpy() for name, part in parts.items()}


def test_only_objects_that_rounding_changes_may_differ() -> None:
    boxes = np.array([[10, 10, 30, 30], [50, 50, 90, 90], [5, 60, 25, 80], [0, 0, 0, 0]], np.float32)
    theirs = FoundObjects(boxes, np.array([0.9, 0.8, 0.7, 0], np.float32), np.array([0, 1, 0, 0]))
    scores = theirs.scores + np.float32([0, 0, 4e-4, 0])
    moved = theirs._replace(boxes=boxes + np.float32([[0], [0], [0.4], [0]]), scores=scores)
    lost = theirs._replace(scores=theirs.scores * np.float32([1, 1, 0, 0]))
    for ours in (moved, lost):
        for steady in ((), (theirs, theirs)):
            with pytest.raises(DifferentError, match="lacks 1 objects"):
                pairs_of(ours, theirs, 0.05, steady)
        assert pairs_of(ours, theirs, 0.05, [theirs, moved]) == [(0, 0), (1, 1)]
    with pytest.raises(DifferentError, match="finds and PyTorch lacks 1 objects"):
        pairs_of(moved, theirs, 0.05, [theirs, lost])
    other = theirs._replace(scores=theirs.scores * np.float32([0, 1, 1, 0]))
    with pytest.raises(DifferentError, match="lacks 1 objects"):
        pairs_of(other, theirs, 0.05, [theirs, moved])


@pytest.mark.slow
def test_an_engine_is_not_blamed_for_the_rounding_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = lively_predictor(neck="c5", anchors=ONE_LEVEL)
    network, config = predictor.network, predictor.config
    exact = copy.deepcopy(network).double()
    monkeypatch.setattr(comparison, "SCORE", 1e-9)  # far below the rounding of float32
    monkeypatch.setattr(comparison, "BOX_PX", 1e-6)
    monkeypatch.setattr(comparison, "BATCHES", ((1, 3, 4),))
    assert check(lambda inputs: run_as_an_engine(exact, config, inputs), network, config).score <= 1e-9
    head = exact.roi_heads.box.heads[0].class_logits
    head.bias.data += torch.linspace(0, 0.1, len(head.bias))
    with pytest.raises(DifferentError, match="report this"):
        check(lambda inputs: run_as_an_engine(exact, config, inputs), network, config)
