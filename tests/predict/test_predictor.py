"""From image files to instances, results and pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import hotcoco
import numpy as np
import pytest
import torch
from PIL import Image

import maskrcnn
from maskrcnn.config import Category, Config, ImageConfig
from maskrcnn.config.conventions import MATTERPORT, OURS, PixelRules
from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.predict import Outputs, Predictor, TorchBackend, postprocess, predict_files, preprocess, to_coco_results
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import frame_of_size
from small_data import random_predictor, write_small


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_paths_pil_images_and_arrays_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    image = picture(50, 70)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = predictor.predict([str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(image), image])
    assert len(found[0]) > 0
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].boxes, other.boxes)
        assert found[0].masks == other.masks


def test_one_image_of_any_kind_gives_a_list_of_one(predictor: Predictor, tmp_path: Path) -> None:
    image = picture(50, 70)
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = predictor.predict([image])[0]
    for single in (image, Image.fromarray(image), tmp_path / "a.png", str(tmp_path / "a.png")):
        (found,) = predictor.predict(single)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
    several = predictor.predict(picture(50, 70, seed) for seed in range(3))
    assert len(several) == 3
    np.testing.assert_array_equal(several[0].boxes, expected.boxes)
    assert len(predictor.predict(np.stack([image, image]))) == 2
    assert len(predictor.predict(np.array([str(tmp_path / "a.png")] * 2))) == 2
    assert len(predictor.predict(image[..., 0])) == 1
    assert predictor.predict([]) == []


def test_images_that_are_none(predictor: Predictor, tmp_path: Path) -> None:
    strange: list[Any] = [np.zeros((5, 5, 3), np.float32), torch.zeros(3, 5, 5), np.array(5), None, 5, b"", BytesIO()]
    for wrong in (*strange, tmp_path / "none.png", "", "none.png"):
        with pytest.raises(ImageError, match=r"expected an? .*found"):
            predictor.predict(wrong)
        with pytest.raises(ImageError, match=r"expected an? .*found.*\(image 1 of the list\)"):
            predictor.predict([picture(20, 20), wrong])
    with pytest.raises(ImageError, match=r"found torch\.Tensor"):
        predictor.predict(torch.zeros(2, 3, 5, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 1 << 70, 1.5, "2", None, True])
def test_sizes_of_a_batch_that_are_none(predictor: Predictor, size: Any) -> None:
    with pytest.raises(ConfigError, match=f"batch size: expected 1 to 65536 images, found {size!r}"):
        predictor.predict([picture(20, 20)], batch_size=size)


def test_pages_that_are_not_read_are_a_warning(predictor: Predictor, tmp_path: Path) -> None:
    Image.fromarray(picture(20, 20)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (5, 5))])
    with pytest.warns(UserWarning, match="only the first of 2 pages is read"):
        assert len(predictor.predict(tmp_path / "a.tif")) == 1


def test_instances_are_in_pixels_of_the_given_image(predictor: Predictor) -> None:
    for height, width in ((31, 200), (200, 31), (64, 64)):
        found = predictor.predict([picture(height, width)])[0]
        assert found.image_hw == (height, width)
        assert found.boxes.dtype == np.float32
        assert (found.boxes[:, :2] >= 0).all()
        assert (found.boxes[:, 2:] <= [width, height]).all()
        assert found.boxes[:, 2:].max() > 0.5 * max(height, width)
        assert (np.diff(found.scores) <= 0).all()
        assert found.names == tuple(("blue", "red")[label] for label in found.labels)
        assert found.keypoints is None
        assert found.masks is not None
        assert found.masks.dense().shape == (len(found), height, width)


@pytest.mark.slow
def test_eight_threads_with_one_model_find_the_same(predictor: Predictor) -> None:
    images = [picture(60, 80, seed) for seed in range(8)]
    expected = [predictor.predict([image])[0] for image in images]

    def predict(number: int) -> bool:
        found = [predictor.predict([image])[0] for image in images[number:] + images[:number]]
        pairs = zip(found, expected[number:] + expected[:number], strict=True)
        return all(np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores) for a, b in pairs)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(predict, range(8))) == [True] * 8


@pytest.mark.slow
def test_memory_stays_flat_over_many_predictions() -> None:
    """In a process of its own, whose highest memory so far is that of the predictions."""
    program = """
import resource
import numpy as np
from small_data import random_predictor

model = random_predictor()
image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
peaks = []
for count in (40, 160):
    for _ in range(count):
        assert len(model.predict([image])[0])
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""
    tests = Path(__file__).resolve().parents[1]  # holds `small_data`
    done = subprocess.run([sys.executable, "-c", program], cwd=tests, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000  # kilobytes; a kept image with its detections has 60 and more


@pytest.mark.slow
def test_a_process_that_is_forked_after_use_with_threads_predicts_the_same(tmp_path: Path) -> None:
    program = """
import multiprocessing, sys
from pathlib import Path
import numpy as np
import torch
import maskrcnn
from maskrcnn.errors import ConfigError
from small_data import random_predictor, write_small

def child(pipe):
    found = maskrcnn.load(path, precision="fp32").predict([image])[0]
    try:
        maskrcnn.evaluate(path, data)
    except ConfigError as error:
        pipe.send((len(found), torch.get_num_threads(), str(error)))

torch.set_num_threads(2)
image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
path, data = sys.argv[1] + "/m.safetensors", write_small(Path(sys.argv[1]), "val", 2)
random_predictor().save(path)
model = maskrcnn.load(path, precision="fp32")
expected = len(model.predict([image])[0])
maskrcnn.evaluate(model, data)
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe()
process = context.Process(target=child, args=(theirs,))
process.start()
found = ours.recv() if ours.poll(60) else None
process.kill()
assert found is not None, "the process waits for ever"
assert found[:2] == (expected, 2) and "forked after its parent" in found[2], found
"""
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr


def test_batches_give_what_single_images_give(predictor: Predictor) -> None:
    images = [picture(60, 80, seed) for seed in range(3)]
    single, batched = predictor.predict(images), predictor.predict(images, batch_size=3)
    for one, other in zip(single, batched, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_fewer_detections_are_the_best_ones(predictor: Predictor) -> None:
    image = picture(64, 80)
    many, few = predictor.predict([image])[0], predictor.with_detections(3).predict([image])[0]
    assert len(many) > 3
    np.testing.assert_array_equal(few.scores, many.scores[:3])


def test_nothing_found(predictor: Predictor) -> None:
    detect = replace(predictor.config.model.detect, score_threshold=1.0)
    strict = replace(predictor, config=replace(predictor.config, model=replace(predictor.config.model, detect=detect)))
    found = strict.predict([picture(40, 50)])[0]
    assert len(found) == 0
    assert found.masks is not None
    assert found.masks.dense().shape == (0, 40, 50)
    assert to_coco_results(found, 1) == []


def test_saved_and_loaded_it_predicts_the_same(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path / "m.safetensors")
    again = maskrcnn.load(tmp_path / "m.safetensors", precision="fp32")
    assert again.config == predictor.config
    image = picture(64, 80)
    one, other = predictor.predict([image])[0], again.predict([image])[0]
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.masks == other.masks


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_computes_in_the_precision_asked_for(
    predictor: Predictor, precision: Literal["fp32", "bf16"]
) -> None:
    seen: list[torch.dtype] = []
    read = predictor.network.backbone.register_forward_hook(lambda module, given, levels: seen.append(levels[-1].dtype))
    try:
        found = replace(predictor, backend=TorchBackend(predictor.network, precision)).predict(picture(64, 80))[0]
    finally:
        read.remove()
    assert seen == [torch.bfloat16 if precision == "bf16" else torch.float32]
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert len(found) > 0


@pytest.mark.slow
def test_compiled_it_finds_the_same(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    # The graph is run operation by operation: to generate code for it takes minutes on two cores.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    compiled = TorchBackend(predictor.network, compile=True)
    images = [picture(60, 80), picture(64, 70, seed=1)]
    for image in images:
        batch = preprocess([image], predictor.config, static_shapes=True)  # of the same size
        plain = predictor.network.detect(batch, predictor.config.model.detect)
        found = compiled.detect(batch, predictor.config.model.detect)
        count = int(plain.valid.sum())
        assert count > 3
        assert int(found.valid.sum()) == count
        torch.testing.assert_close(found.boxes[:, :count], plain.boxes[:, :count], rtol=0, atol=1e-3)
        torch.testing.assert_close(found.scores[:, :count], plain.scores[:, :count], rtol=0, atol=1e-5)
        assert found.mask_probs is not None
        assert plain.mask_probs is not None
        torch.testing.assert_close(found.mask_probs[:, :count], plain.mask_probs[:, :count], rtol=0, atol=1e-4)


def test_results_are_coco_results(predictor: Predictor) -> None:
    found = predictor.predict([picture(64, 80)])[0]
    assert found.masks is not None
    results = json.loads(json.dumps(to_coco_results(found, 5)))
    assert len(results) == len(found)
    for i, entry in enumerate(results):
        assert entry["image_id"] == 5
        assert entry["category_id"] == (3, 7)[found.labels[i]]
        x, y, w, h = entry["bbox"]
        np.testing.assert_allclose([x, y, x + w, y + h], found.boxes[i], atol=2e-3)
        np.testing.assert_array_equal(hotcoco.mask.decode(entry["segmentation"]), found.masks[i].dense())


def test_fixed_size_input() -> None:
    batch = preprocess([picture(30, 60), picture(100, 20)], Config(image=ImageConfig(fixed_size=(64, 96))))
    assert batch.pixels.shape == (2, 3, 64, 96)
    assert batch.sizes_hw.tolist() == [[48, 96], [64, 13]]


@pytest.mark.parametrize(
    ("letterbox", "input_hw", "window"),
    [("square", (128, 128), (0, 32, 128, 96)), ("divisor", (64, 128), (0, 0, 128, 64))],
)
def test_letterbox_padding_is_image_to_the_network(
    letterbox: str, input_hw: tuple[int, int], window: tuple[int, ...], predictor: Predictor
) -> None:
    """The image stands in the middle, its padding is -mean after normalisation, and boxes come back without it."""
    rules = replace(OURS, pixels=PixelRules(letterbox=letterbox, kernel="truncated"))  # type: ignore[arg-type]
    batch = preprocess([picture(30, 60)], Config(image=ImageConfig(short_side=100, long_side=128), conventions=rules))
    assert batch.pixels.shape[2:] == input_hw
    assert batch.sizes_hw.tolist() == [list(input_hw)]
    assert batch.windows.tolist() == [list(window)]
    x1, y1, x2, y2 = window
    inside = torch.zeros(input_hw, dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    assert not batch.pixels[0, :, ~inside].any()
    assert batch.pixels[0, :, inside].float().mean() > 5
    network = predictor.network
    padding = network.normalise(batch)[0, :, ~inside]
    torch.testing.assert_close(padding, (-network.pixel_mean / network.pixel_std)[:, :, 0].expand_as(padding))
    boxes = torch.tensor([[[x1 + 32.0, y1 + 16.0, x1 + 64.0, y1 + 32.0]]])
    found = Detections(
        boxes, torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    )
    instances = postprocess(found, batch.frames, predictor.config)[0]
    np.testing.assert_allclose(instances.boxes, [[15, 7.5, 30, 15]])


def test_whole_boxes_that_end_at_the_last_pixel(predictor: Predictor) -> None:
    """Matterport's denormalisation: the last pixel of the input is that of the image, then whole pixels, and boxes
    that lost their area go."""
    rules = replace(OURS, boxes=MATTERPORT.boxes, detections=MATTERPORT.detections)
    config = replace(predictor.config, conventions=rules)
    boxes = torch.tensor([[[0.0, 0.0, 99.0, 49.0], [10.0, 10.0, 20.2, 30.0], [10.0, 10.0, 10.0, 20.0]]])
    count = boxes.shape[1]
    found = Detections(
        boxes,
        torch.ones(1, count),
        torch.zeros(1, count, dtype=torch.int64),
        torch.ones(1, count, dtype=torch.bool),
    )
    instances = postprocess(found, [frame_of_size((25, 50), (50, 100))], config)[0]
    expected = np.around(boxes[0].numpy() * [49 / 99, 24 / 49, 49 / 99, 24 / 49] + [0, 0, 1, 1])
    np.testing.assert_array_equal(instances.boxes, expected)
    assert instances.boxes[0].tolist() == [0, 0, 50, 25]
    shorter = replace(found, boxes=found.boxes - torch.tensor([0.0, 0, 1.5, 0]))
    shifted = postprocess(shorter, [frame_of_size((25, 50), (50, 100))], config)[0]
    assert len(shifted) == 2


def test_files_are_predicted_drawn_and_broken_ones_skipped_or_refused(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small(tmp_path, "images", 2)
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / f"{'1' * 250}.png")
    files = sorted((tmp_path / "images").iterdir())
    (tmp_path / "bad.png").write_bytes(b"no image")
    three = [files[0], tmp_path / "bad.png", files[1]]
    summary = predict_files(predictor, three, tmp_path / "out", Outputs(min_score=0.0))
    assert (summary.images, len(summary.skipped)) == (2, 1)
    assert "skipped: " in capsys.readouterr().err
    results = json.loads(summary.results.read_text())
    assert {entry["image_id"] for entry in results} == {1, 3}
    assert {entry["file_name"] for entry in results} == {str(files[0]), str(files[1])}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000001_0.png",
        f"000003_{'1' * 100}.png",
        "predictions.json",
    ]
    with Image.open(tmp_path / "out" / "000001_0.png") as drawn:
        assert drawn.size[0] >= 80
    with pytest.raises(ImageError, match=r"bad\.png"):
        predict_files(predictor, three[:2], tmp_path / "strict", Outputs(draw=False), strict=True)
    assert json.loads((tmp_path / "strict" / "predictions.json").read_text()), "what was found before is kept"


def test_pictures_replace_no_image_that_is_read(predictor: Predictor, tmp_path: Path) -> None:
    write_small(tmp_path, "images", 2)
    first, second = sorted((tmp_path / "images").iterdir())
    second = second.rename(tmp_path / "images" / "000001_0.png")
    image = second.read_bytes()
    with pytest.raises(ConfigError, match=r"000001_0\.png: expected a file to write, found one that is read"):
        predict_files(predictor, [first, second], tmp_path / "images")
    assert second.read_bytes() == image
    for _ in range(2):  # its own pictures may be replaced
        assert predict_files(predictor, [second, first], tmp_path / "images", Outputs(min_score=0.0)).images == 2
    assert second.read_bytes() == image


@pytest.mark.slow
def test_300_detections_on_12_megapixels_cost_megabytes() -> None:
    """In a process of its own, because memory that a process has once used does not come back."""
    program = """
import resource
import torch
from maskrcnn.predict import postprocess, to_coco_results
from maskrcnn.config.presets import preset
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import frame_of_size
torch.manual_seed(0)
corner = torch.rand(1, 300, 2) * torch.tensor([600.0, 400.0])
boxes = torch.cat([corner, corner + 60 + 600 * torch.rand(1, 300, 2)], dim=-1)
probs = torch.nn.functional.interpolate(torch.rand(300, 1, 5, 5), size=(28, 28), mode="bilinear")[None, :, 0]
scores, labels, valid = torch.rand(1, 300), torch.zeros(1, 300, dtype=torch.int64), torch.ones(1, 300, dtype=bool)
found = Detections(boxes, scores, labels, valid, probs)
config = preset("mask_rcnn_R_50_FPN")
small = Detections(boxes[:, :1], scores[:, :1], labels[:, :1], valid[:, :1], probs[:, :1])
postprocess(small, [frame_of_size((60, 80), (800, 1067))], config)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
instances = postprocess(found, [frame_of_size((3000, 4000), (800, 1067))], config)[0]
results = to_coco_results(instances, 1)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(results) == 300 and sum(instances.masks.areas() > 0) > 250
print((after - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300


def test_detections_keep_their_place_when_brought_back(predictor: Predictor) -> None:
    boxes = torch.tensor([[[10.0, 20.0, 30.0, 40.0], [0.0, 0.0, 0.0, 0.0]]])
    probs = torch.ones(1, 2, 28, 28)
    found = Detections(boxes, torch.tensor([[0.9, 0.0]]), torch.tensor([[1, 0]]), torch.tensor([[True, False]]), probs)
    instances = postprocess(found, [frame_of_size((100, 400), (50, 100))], predictor.config)[0]
    assert instances.boxes.tolist() == [[40.0, 40.0, 120.0, 80.0]]
    assert instances.names == ("red",)
    assert instances.masks is not None
    dense = instances.masks.dense()[0]
    assert dense[40:80, 40:120].all()
    assert dense.sum() == 40 * 80


def test_keypoints_are_brought_back_and_written_as_indices_of_pixels(predictor: Predictor) -> None:
    boxes = torch.tensor([[[10.0, 20.0, 30.0, 40.0], [50.0, 10.0, 60.0, 20.0], [0.0, 0.0, 0.0, 0.0]]])
    points = torch.tensor([[[12.0, 22.0, 0.7], [30.0, 40.0, 0.2]], [[50.5, 10.5, 0.9], [60.0, 12.0, 0.1]]])
    points = torch.cat([points, torch.zeros(1, 2, 3)])[None]
    scores, valid = torch.tensor([[0.9, 0.8, 0.0]]), torch.tensor([[True, True, False]])
    found = Detections(boxes, scores, torch.tensor([[1, 0, 0]]), valid, keypoints=points)
    categories = (Category(3, "blue"), Category(7, "red", ("left", "right"), ((0, 1),)))
    config = replace(predictor.config, categories=categories)
    instances = postprocess(found, [frame_of_size((100, 400), (50, 100))], config)[0]
    assert instances.keypoints is not None
    assert instances.keypoints.dtype == np.float32
    expected = [[[48, 44, 0.7], [120, 80, 0.2]], [[202, 21, 0.9], [240, 24, 0.1]]]
    np.testing.assert_allclose(instances.keypoints, expected, rtol=1e-6)
    assert instances.categories == categories
    first, second = json.loads(json.dumps(to_coco_results(instances, 1)))
    np.testing.assert_allclose(first["keypoints"], [47.5, 43.5, 0.7, 119.5, 79.5, 0.2], rtol=1e-6)
    assert "keypoints" not in second, "its category has none"
    nameless = to_coco_results(replace(instances, categories=()), 1)
    assert [(entry["category_id"], len(entry["keypoints"])) for entry in nameless] == [(2, 6), (1, 6)]
