"""The function for cvat-cli, loaded and called as cvat-sdk does it. A client of the test stands for the server."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from maskrcnn.cvat import Function, create
from maskrcnn.errors import MissingPackageError
from maskrcnn.ops.outlines import FEW_CORNERS
from maskrcnn.predict import Predictor, load
from maskrcnn.structures.masks import RLE
from small_data import random_predictor, small_coco

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:cvat_sdk")
PICTURES = small_coco(2)[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    random_predictor().save(path)
    return path


@pytest.fixture(scope="module")
def model(file: Path) -> Predictor:
    return load(file)


def annotated(function: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """The shapes that `annotate_task` uploads for a task of two pictures whose labels have ids of their own."""
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import annotate_task, driver

    kind = "polygon" if options.get("conv_mask_to_poly") else "any"
    labels = [
        models.Label(name=name, id=70 + i, type=kind, attributes=[], sublabels=[])
        for i, name in enumerate(("red", "blue"))
    ]
    samples = [
        SimpleNamespace(
            frame_name=f"{i}.png",
            frame_index=i,
            media=SimpleNamespace(load_image=lambda i=i: Image.fromarray(PICTURES[i])),
        )
        for i in range(len(PICTURES))
    ]
    uploaded: list[Any] = []
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=samples))
    api = SimpleNamespace(
        partial_update_annotations=lambda _, task, patched_labeled_data_request: uploaded.extend(
            patched_labeled_data_request.shapes
        )
    )
    client: Any = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    annotate_task(client, 7, function, **options)
    return uploaded


def test_the_masks_of_a_task_are_the_prediction(file: Path, model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvat_cli._internal.common import FunctionLoader
    from cvat_sdk.masks import decode_mask

    function = FunctionLoader("maskrcnn.cvat", None, {"model": str(file), "device": "cpu"}).load()
    shapes = annotated(function, monkeypatch, conf_threshold=0.0)
    expected = [
        (frame, {"red": 70, "blue": 71}[found.names[i]], float(found.scores[i]), found.masks[i])
        for frame, found in enumerate(model.predict(PICTURES))
        for i in range(len(found))
        if found.masks[i].area
    ]
    assert len(expected) > 20
    for shape, (frame, label, score, mask) in zip(shapes, expected, strict=True):
        assert (shape.frame, shape.label_id, shape.score, shape.type.value) == (frame, label, score, "mask")
        assert RLE.from_dense(decode_mask(shape.points, image_width=80, image_height=64)) == mask
    assert annotated(function, monkeypatch) == []  # scores of random weights are below the thresholds
    least = expected[2][2]
    assert [shape.score for shape in annotated(function, monkeypatch, conf_threshold=least)][:3] == [
        score for _, _, score, _ in expected[:3]
    ]


def test_polygons_where_the_command_asks_for_them(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = annotated(Function(model), monkeypatch, conf_threshold=0.0, conv_mask_to_poly=True)
    assert {shape.type.value for shape in shapes} == {"polygon"}
    masks = [mask for found in model.predict(PICTURES) for mask in found.masks if mask.area]
    parts = [part for mask in masks for part in mask.outer_polygons(FEW_CORNERS) if len(part) > 2]
    assert [shape.points for shape in shapes] == [part.reshape(-1).tolist() for part in parts]


def test_without_cvat_sdk_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk.auto_annotation", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'maskrcnn\[cvat\]'"):
        create("m.safetensors")
