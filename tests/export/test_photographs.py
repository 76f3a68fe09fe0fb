"""Exported networks and PyTorch find the same in photographs of all sizes: fixtures of other frameworks and `nuclei`.

Generated pictures, on which each export is compared before it gets its name, have neither faces nor grass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskrcnn
from maskrcnn.config import Config
from maskrcnn.export.check import (
    CheckedBatch,
    agreement,
    drawn_spans,
    pixels_outside,
    spans_of,
)
from maskrcnn.export.save import export_model
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.predict.exported import Arrays, ExportFormat, open_engine
from maskrcnn.predict.images import paste, preprocess
from same_graph import in_openvino
from small_network import lively_network, network_config
from variants import VARIANTS

MODELS = {
    "nuclei": "nuclei",
    "Detectron2's FPN": "detectron2/r50_fpn/model_final.pkl",
    "Detectron2's C4": "detectron2/r50_c4/model_final.pkl",
    "Detectron2's keypoints": "detectron2/keypoint_r50_fpn/model_final.pth",
    "Detectron2's cascade": "detectron2/cascade_r50_fpn/model_final.pkl",
    "MMDetection's FPN": "mmdet/r50_caffe_fpn/epoch_12.pth",
}
# Height and width of each photograph; the last three are one batch.
SIZES = (
    *((64, 64), (64, 200), (90, 60), (128, 128), (150, 333), (200, 64), (256, 256), (300, 400), (333, 500), (360, 640)),
    *((375, 500), (480, 480), (480, 640), (500, 333), (640, 427), (700, 1100), (1024, 768), (2000, 3000)),
    *((240, 320), (400, 300), (320, 320)),
)
IN_ONE_BATCH = 3
EVERY = 3
NEAR = 1e-4  # of the threshold of masks: rounding decides about such pixels


def photographs(shared: Path) -> Iterator[list[np.ndarray]]:
    """Batches of photographs (H, W, 3) uint8 of nuclei, persons and scenes, cut and resized to `SIZES`."""
    files = [
        file for name in ("nuclei", "person", "coco") for file in sorted((shared / "data" / name / "val").iterdir())[:7]
    ]
    order = np.random.default_rng(0).permutation(len(files))
    images = [of_size(files[number], *size) for number, size in zip(order, SIZES, strict=True)]
    yield from ([image] for image in images[:-IN_ONE_BATCH])
    yield images[-IN_ONE_BATCH:]


def of_size(file: Path, height: int, width: int) -> np.ndarray:
    """The middle of a photograph that has the shape of the result, resized."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = min(image.height / height, image.width / width)
    rows, columns = min(scale * height, image.height), min(scale * width, image.width)  # rounding must not lead outside
    top, left = (image.height - rows) / 2, (image.width - columns) / 2
    return np.array(image.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + columns, top + rows)))


def case_of(images: list[np.ndarray], config: Config) -> CheckedBatch:
    batch = preprocess(images, config)
    scale = np.stack([1 / frame.scale_xy for frame in batch.frames]).astype(np.float32)
    original = np.array([image.shape[:2] for image in images])
    given = {"pixels": batch.pixels.numpy(), "sizes_hw": batch.sizes_hw.numpy()}
    return CheckedBatch(batch, original, scale, given | {"original_hw": original, "scale_xy": scale})


def wrong_pixels(found: Arrays, case: CheckedBatch, config: Config) -> int:
    """Pixels of the graph's runs that its own masks put more than `NEAR` beyond the threshold."""
    detect = config.model.detect
    either = [
        replace(
            config, model=replace(config.model, detect=replace(detect, mask_threshold=detect.mask_threshold + shift))
        )
        for shift in (NEAR, -NEAR)
    ]
    wrong = 0
    for number, (height, width) in enumerate(case.original_hw.tolist()):
        kept = np.flatnonzero(found["scores"][number] > 0)
        masks, boxes = found["masks"][number][kept], found["boxes"][number][kept]
        fewest, most = (spans_of(paste(masks, boxes, (height, width), config), kept) for config in either)
        drawn = drawn_spans(found["runs"], number, (height, width))
        wrong += pixels_outside(fewest, drawn) + pixels_outside(drawn, most)
    return wrong


def compare(
    predictor: Predictor, exported: Path, form: ExportFormat, batches: Iterable[list[np.ndarray]]
) -> tuple[int, float, float]:
    """Objects that were compared, and the largest differences of edges and scores.

    Raises:
        DifferentError: an object has no partner within 0.01 px and a score of 2e-4, or masks differ.
    """
    assert isinstance(predictor.backend, TorchBackend)
    network, config = predictor.backend.network, predictor.config
    run = open_engine(exported, form, precision="fp32").run
    objects, box_px, score = 0, 0.0, 0.0
    for images in batches:
        case = case_of(images, config)
        (found,) = agreement(run, network, config, [case])
        objects, box_px, score = objects + found.objects, max(box_px, found.box_px), max(score, found.score)
        if config.model.mask_head is not None:
            assert wrong_pixels(run(case.given), case, config) == 0
    return objects, box_px, score


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_photographs(name: str, shared: Path, tmp_path: Path) -> None:
    source = MODELS[name]
    file = shared / "fixtures" / source
    settings = next((path for path in file.parent.glob("config.*")), None)
    predictor = maskrcnn.load(source if settings is None else file, "cpu", config_file=settings, precision="fp32")
    *single, batch = photographs(shared)
    first = list(MODELS).index(name) % EVERY  # all together see all photographs, each model a part of them
    export_model(predictor.network, predictor.config, {}, tmp_path / "model.onnx")
    objects, box_px, score = compare(predictor, tmp_path / "model.onnx", "onnx", [*single[first::EVERY], batch])
    print(f"{name}: {objects} objects, {box_px:.5f} px, {score:.2e}")
    assert objects > 30


@pytest.mark.slow
def test_photographs_in_both_engines(shared: Path, tmp_path: Path) -> None:
    """A dilated res5, which no fixture has."""
    config = network_config(**VARIANTS["DC5"])
    predictor = Predictor(TorchBackend(lively_network(config).eval()), config, {})
    file = tmp_path / "model.onnx"
    export_model(predictor.network, config, {}, file)
    *single, batch = photographs(shared)
    exported: dict[ExportFormat, Path] = {"onnx": file, "openvino": in_openvino(file, tmp_path / "openvino")}
    for form, path in exported.items():
        objects, box_px, score = compare(predictor, path, form, [*single[:: 2 * EVERY], batch])
        print(f"{form}: {objects} objects, {box_px:.5f} px, {score:.2e}")
        assert objects > 300
