"""Thousands of changed files of every kind: each is read or refused with an error of ours.

`pytest -m fuzz` tries 2,000 of each format of data sets and some hundreds of each other kind, always the same ones; the
fast tests try a few. No other exception is raised, nothing takes over ten seconds, and no file takes over a gigabyte of
memory. `FUZZ_SEED=3 pytest -m fuzz` tries others.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import load_file, save_file

import keras_weights
from encoded_pictures import encoded_pictures
from maskrcnn.cli import main
from maskrcnn.config import Config, config_to_dict
from maskrcnn.data.formats import FORMATS, read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import MaskRCNNError
from maskrcnn.files.images import read_image
from maskrcnn.weights.frameworks import detectron, maskrcnn_benchmark, matterport, tensorpack
from maskrcnn.weights.frameworks.detectron import Detectron
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.maskrcnn_benchmark import MaskRCNNBenchmark
from maskrcnn.weights.frameworks.matterport import Matterport
from maskrcnn.weights.frameworks.mmdetection import MMDetection
from maskrcnn.weights.frameworks.tensorpack import Tensorpack
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import with_rules
from maskrcnn.weights.model_file import METADATA_KEY, save_model
from maskrcnn.weights.open import open_weights
from mutations import mutated, mutated_bytes, mutated_json
from small_data import write_small
from small_formats import write_format
from small_network import lively_network, network_config
from small_scene import save_images

pytestmark = pytest.mark.filterwarnings("ignore")  # numpy and Pillow warn about odd values
SECONDS, MEMORY = 10, 1 << 30
SEED = os.environ.get("FUZZ_SEED", "0")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
Change = Callable[[Path, random.Random], object]


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    Attributes:
        prepare: fills a folder and returns a function that writes a changed file and returns what reads it.
        count: the changes that `pytest -m fuzz` tries.
    """

    prepare: Callable[[Path], Callable[[random.Random], Callable[[], object]]]
    count: int


def command(*args: object) -> None:
    """Runs a command of ours. Raises MaskRCNNError if it ends with another exit code than 0."""
    code = main([str(arg) for arg in args])
    if code:
        raise MaskRCNNError(f"exit code {code}")


def data_set(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
    path = write_small(folder, "val", 3)
    content = json.loads(path.read_text())
    first = content["annotations"][0]
    mask = {"size": [64, 80], "counts": [100, 20, 44, 20, 4936]}
    content["annotations"][0] = {**first, "segmentation": mask, "iscrowd": 1}
    (folder / "results.json").write_text(json.dumps(results_of(content)))

    def change(rng: random.Random) -> Callable[[], object]:
        path.write_bytes(mutated_json(content, rng))
        if rng.random() < 0.5:
            return lambda: command("data", "check", path)
        return lambda: command("evaluate", "--results", folder / "results.json", "--data", path)

    return change


def format_file(key: str) -> Callable[[Path], Callable[[random.Random], Callable[[], object]]]:
    """A file of a data set of a format: its parts, its pixels or its bytes change."""

    def prepare(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
        file, home = write_format(folder, key)
        content = file.read_bytes()

        def change(rng: random.Random) -> Callable[[], object]:
            if file.suffix in (".json", ".geojson") and rng.random() < 0.8:
                file.write_bytes(mutated_json(json.loads(content), rng))
            elif file.suffix == ".png" and rng.random() < 0.7:
                file.write_bytes(mutated_picture(content, rng))
            else:
                file.write_bytes(mutated_bytes(content, rng))
            strict = rng.random() < 0.3
            return lambda: read_dataset(home, strict=strict, hints=Hints(format=key))  # type: ignore[arg-type]

        return change

    return prepare


def mutated_picture(content: bytes, rng: random.Random) -> bytes:
    """A PNG in which a corner has another value, of another type or size."""
    values = np.array(Image.open(io.BytesIO(content)))
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    values[rng.randrange(40) :, rng.randrange(56) :] = rng.choice((0, 1, 255, values.max(), 10_000 % 256))
    values = values.astype(rng.choice((values.dtype, np.uint8)))
    buffer = io.BytesIO()
    Image.fromarray(values[: rng.choice((40, 40, 39))]).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def results_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Results that find every object, with masks of both codings."""
    runs = {"size": [64, 80], "counts": [100, 20, 44, 20, 4936]}
    packed = coco_mask.frPyObjects(runs, 64, 80)
    masks = [runs, {**packed, "counts": packed["counts"].decode()}]
    return [
        {
            "image_id": found["image_id"],
            "category_id": found["category_id"],
            "bbox": found["bbox"],
            "segmentation": masks[i % 2],
            "score": 0.5,
            "file_name": f"{found['image_id'] - 1}.png",
        }
        for i, found in enumerate(content["annotations"])
    ]


def results(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
    path, found = write_small(folder, "val", 3), folder / "results.json"
    content = results_of(json.loads(path.read_text()))

    def change(rng: random.Random) -> Callable[[], object]:
        found.write_bytes(mutated_json(content, rng))
        return lambda: command("evaluate", "--results", found, "--data", path)

    return change


def images(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
    path = folder / "image"

    def change(rng: random.Random) -> Callable[[], object]:
        path.write_bytes(mutated_bytes(rng.choice(encoded_pictures()), rng))
        return lambda: read_image(path)

    return change


def cellpose(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
    """Cellpose's pickle: its bytes change."""
    save_images(folder, ("one",))
    file = folder / "one_seg.npy"
    np.save(file, {"masks": np.eye(40, 56, dtype=np.uint16), "flows": [[], None]}, allow_pickle=True)  # type: ignore[arg-type]
    content = file.read_bytes()

    def change(rng: random.Random) -> Callable[[], object]:
        file.write_bytes(mutated_bytes(content, rng))
        return lambda: read_dataset(folder, hints=Hints(format="label-images"))

    return change


def model_file(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
    """Our own file: the bytes, the header, or the tensors change."""
    config, path = network_config(num_classes=2), folder / "model.safetensors"
    save_model(path, lively_network(config), config, {"steps": 3, "data": "train.json"})
    content, tensors = path.read_bytes(), load_file(path)
    header = {"format": 1, "config": config_to_dict(config), "provenance": {"steps": 3}}

    def change(rng: random.Random) -> Callable[[], object]:
        match rng.randrange(3):
            case 0:
                path.write_bytes(mutated_bytes(content, rng))
            case 1:
                text = mutated_json(header, rng).decode("utf-8", "ignore").replace("\0", "")
                save_file(tensors, path, {METADATA_KEY: text})
            case _:
                save_file(changed_tensors(tensors, rng), path, {METADATA_KEY: json.dumps(header)})
        return lambda: open_weights(path)

    return change


def changed_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """The tensors with some of them missing, renamed, or of another shape, type or values."""
    changed = dict(tensors)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(changed))
        value = changed[name]
        match rng.randrange(6):
            case 0:
                del changed[name]
            case 1:
                changed[rng.choice((name + "x", "a\x1b[2J", "", name.replace("0", "99999999999")))] = changed.pop(name)
            case 2:
                kinds = (torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint8)
                changed[name] = value.to(rng.choice(kinds))
            case 3:
                changed[name] = value * rng.choice((float("nan"), float("inf"), 1e30, 0))
            case 4:
                changed[name] = value.flatten()[: rng.randint(0, 9)].clone()
            case _:
                changed[name] = torch.zeros([rng.choice((0, 1, 2, 3, 7, 64)) for _ in range(rng.randint(0, 5))])
    return changed


def network_file(
    tensors: Callable[[], dict[str, torch.Tensor]], write: Callable[[Path, dict[str, Any]], object], beside: Any = None
) -> Callable[[Path], Callable[[random.Random], Callable[[], object]]]:
    """A checkpoint: its bytes, its tensors, or the plain data beside them change."""

    def prepare(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
        path, whole = folder / "weights", tensors()
        write(path, {"weights": whole, "beside": beside})
        content = path.read_bytes()

        def change(rng: random.Random) -> Callable[[], object]:
            match rng.randrange(3 if beside else 2):
                case 0:
                    path.write_bytes(mutated_bytes(content, rng))
                case 1:
                    write(path, {"weights": changed_tensors(whole, rng), "beside": beside})
                case _:
                    write(path, {"weights": whole, "beside": mutated(beside, rng)})
            return lambda: open_weights(path)

        return change

    return prepare


@cache
def exported(framework: Any) -> dict[str, torch.Tensor]:
    base = network_config(num_classes=2)
    config = (
        with_rules(base.model)
        if framework is Torchvision
        else network_config(num_classes=2, backbone=replace(base.model.resnet, depth=18))
    )
    return framework().export_state(config, lively_network(config).state_dict())  # type: ignore[no-any-return]


def write_torch(path: Path, content: dict[str, Any]) -> None:
    beside = content["beside"]
    torch.save({"model": content["weights"], **(beside if isinstance(beside, dict) else {"meta": beside})}, path)


def write_detectron2(path: Path, content: dict[str, Any]) -> None:
    arrays = {name: array_of(value) for name, value in content["weights"].items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}, protocol=2))


def write_npz(path: Path, content: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name.replace("\0", "") or "x": array_of(value) for name, value in content["weights"].items()})


def write_hdf5(path: Path, content: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, value in content["weights"].items():
            try:
                file[name.replace("\0", "") or "x"] = array_of(value)
            except (ValueError, OSError, RuntimeError):  # HDF5 has no such name
                continue


def array_of(value: torch.Tensor) -> np.ndarray:
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()


def config_file(
    content: Any, suffix: str, reads: Callable[[Path, Path], Callable[[], object]], framework: Any = None
) -> Callable[[Path], Callable[[random.Random], Callable[[], object]]]:
    """A file of settings: its parts, or its bytes, change."""

    def prepare(folder: Path) -> Callable[[random.Random], Callable[[], object]]:
        path, weights = folder / f"config{suffix}", folder / "weights.pth"
        if framework is not None:
            torch.save(exported(framework), weights)

        def change(rng: random.Random) -> Callable[[], object]:
            if suffix == ".py":
                other = mutated(content, rng)
                parts = other if isinstance(other, dict) else {"model": other}
                text = "".join(f"{name} = {value!r}\n" for name, value in parts.items())
                text = text.replace("inf", "1e999").replace("nan", "-1")
            elif suffix == ".yaml":
                text = yaml.safe_dump(mutated(content, rng))
            else:
                text = mutated_json(content, rng).decode("utf-8", "replace")
            data = text.encode("utf-8", "replace")
            path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.2 else data)
            return reads(path, weights)

        return change

    return prepare


def with_weights(path: Path, weights: Path) -> Callable[[], object]:
    return lambda: open_weights(weights, path)


def with_architecture(framework: Any, settings: Any) -> Callable[[Path, Path], Callable[[], object]]:
    """Reads the settings of a framework, and the config of a network of two classes that follows from them.

    Args:
        settings: the module of the framework's settings.
    """
    base = network_config(num_classes=2).model
    model = replace(base, backbone=replace(base.resnet, depth=50))

    def reads(path: Path, _: Path) -> Callable[[], object]:
        return lambda: settings.our_config(model, framework().read_settings(path))

    return reads


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """`{"A": {"B": 1}}` for `{"A.B": 1}`."""
    whole: dict[str, Any] = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        part = whole
        for key in above:
            part = part.setdefault(key, {})
        part[last] = list(value) if isinstance(value, tuple) else value
    return whole


DETECTRON2_CONFIG = {
    "VERSION": 2,
    "MODEL": {
        "MASK_ON": True,
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": "[[0.5, 1.0, 2.0]]"},
        "RESNETS": {"DEPTH": 18, "NORM": "FrozenBN", "STRIDE_IN_1X1": False},
        "ROI_HEADS": {"NUM_CLASSES": 2, "SCORE_THRESH_TEST": 0.05, "NMS_THRESH_TEST": 0.5},
        "RPN": {"PRE_NMS_TOPK_TEST": 1000, "NMS_THRESH": 0.7, "BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0]},
        "ROI_BOX_HEAD": {"BBOX_REG_WEIGHTS": "(10.0, 10.0, 5.0, 5.0)", "POOLER_SAMPLING_RATIO": 0},
        "PIXEL_MEAN": [103.53, 116.28, 123.675],
        "PIXEL_STD": [1.0, 1.0, 1.0],
    },
    "INPUT": {"FORMAT": "BGR", "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333, "MIN_SIZE_TRAIN": "(640, 800)"},
    "TEST": {"DETECTIONS_PER_IMAGE": 100},
}
MMDETECTION_CONFIG: dict[str, Any] = {
    "model": {
        "type": "MaskRCNN",
        "data_preprocessor": {
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "pad_size_divisor": 32,
        },
        "backbone": {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}, "style": "pytorch"},
        "neck": {"type": "FPN", "out_channels": 32, "num_outs": 5},
        "rpn_head": {
            "anchor_generator": {"scales": [8], "ratios": [0.5, 1.0, 2.0], "strides": [4, 8, 16, 32, 64]},
            "bbox_coder": {"target_means": [0.0] * 4, "target_stds": [1.0] * 4},
        },
        "roi_head": {
            "bbox_roi_extractor": {"roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 0}},
            "bbox_head": {"num_classes": 2, "bbox_coder": {"target_stds": [0.1, 0.1, 0.2, 0.2]}},
            "mask_head": {"type": "FCNMaskHead", "num_classes": 2},
        },
        "test_cfg": {"rpn": {"nms_pre": 1000, "max_per_img": 1000}, "rcnn": {"score_thr": 0.05, "max_per_img": 100}},
    },
    "test_pipeline": [{"type": "Resize", "scale": (1333, 800), "keep_ratio": True}],
}
ROI_KINDS = ("FAST_RCNN.ROI_XFORM_METHOD", "MRCNN.ROI_XFORM_METHOD", "KRCNN.ROI_XFORM_METHOD")
SUBJECTS = {
    **{f"a file of {format.key}": Subject(format_file(format.key), 2000) for format in FORMATS},
    "Cellpose's pickle": Subject(cellpose, 2000),
    "COCO JSON in commands": Subject(data_set, 300),
    "results": Subject(results, 1000),
    "images": Subject(images, 1200),
    "model file": Subject(model_file, 300),
    "torch zip": Subject(
        network_file(
            lambda: exported(Torchvision),
            write_torch,
            {"epoch": 3, "args": {"lr": 0.1, "names": ["a", "b"]}, "optimizer": {"param_groups": [{"lr": 0.1}]}},
        ),
        200,
    ),
    "torch zip of MMDetection": Subject(
        network_file(
            lambda: exported(MMDetection),
            write_torch,
            {"meta": {"dataset_meta": {"CLASSES": ["a", "b"]}, "cfg": f"model = {MMDETECTION_CONFIG['model']!r}"}},
        ),
        200,
    ),
    "pickle": Subject(network_file(lambda: exported(Detectron2), write_detectron2), 200),
    "npz": Subject(network_file(lambda: exported(Torchvision), write_npz), 100),
    "HDF5": Subject(network_file(keras_weights.weights, write_hdf5), 50),
    "Detectron2's config": Subject(config_file(DETECTRON2_CONFIG, ".yaml", with_weights, Detectron2), 150),
    "MMDetection's config": Subject(config_file(MMDETECTION_CONFIG, ".py", with_weights, MMDetection), 150),
    "torchvision's settings": Subject(
        config_file(
            {"min_size": 64, "max_size": 96, "categories": ["cat", "dog"], "box_score_thresh": 0.02},
            ".json",
            with_weights,
            Torchvision,
        ),
        100,
    ),
    "Matterport's settings": Subject(
        config_file(
            {"NUM_CLASSES": 3, "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128, "RPN_ANCHOR_SCALES": [8, 16, 32, 64, 128]},
            ".json",
            with_architecture(Matterport, matterport.settings),
        ),
        100,
    ),
    "tensorpack's config": Subject(
        config_file(nested(tensorpack.settings.DEFAULTS), ".json", with_architecture(Tensorpack, tensorpack.settings)),
        100,
    ),
    "Detectron's config": Subject(
        config_file(
            nested(detectron.settings.DEFAULTS | dict.fromkeys(ROI_KINDS, "RoIAlign") | {"MRCNN.DILATION": 1}),
            ".yaml",
            with_architecture(Detectron, detectron.settings),
        ),
        100,
    ),
    "maskrcnn-benchmark's config": Subject(
        config_file(
            nested(
                maskrcnn_benchmark.settings.DEFAULTS
                | {"MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1000, "DATALOADER.SIZE_DIVISIBILITY": 32}
            ),
            ".yaml",
            with_architecture(MaskRCNNBenchmark, maskrcnn_benchmark.settings),
        ),
        100,
    ),
    "our config": Subject(
        config_file(
            config_to_dict(Config()),
            ".yaml",
            lambda path, _: (
                lambda: command(
                    *("train", "none.json", "--config", path, "--out", path.parent / "run", "--print-config")
                )
            ),
        ),
        300,
    ),
}


class HangError(BaseException):
    """A file took too long. No `except Exception` stops it."""


@contextmanager
def limits() -> Iterator[None]:
    """Raises HangError after `SECONDS`, and MemoryError if the process needed `MEMORY` more than before."""

    def stop(*_: object) -> None:
        raise HangError(f"more than {SECONDS} s")

    old = signal.signal(signal.SIGALRM, stop)
    before = peak(reset=True)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    if peak() - before > MEMORY:
        raise MemoryError(f"{(peak() - before) >> 20} MiB")


def peak(*, reset: bool = False) -> int:
    """The most memory that this process had since the last reset, in bytes; 0 where the system does not tell."""
    if not CLEAR.exists():
        return 0
    if reset:
        CLEAR.write_text("5")
    return next(int(line.split()[1]) << 10 for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))


def check(subject: Subject, folder: Path, seeds: range) -> None:
    """Fails with every place in our code that raised another error than ours, and a seed for each."""
    change = subject.prepare(folder)
    bad: dict[str, list[int]] = {}
    ends: Counter[str] = Counter()
    for seed in seeds:
        reads = change(random.Random(f"{SEED} {seed}"))
        try:
            with limits():
                reads()
            ends["read"] += 1
        except (MaskRCNNError, SystemExit):
            ends["refused"] += 1
        except BaseException as error:  # HangError and what extensions in Rust raise are no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/maskrcnn/" in frame.filename]
            place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
            bad.setdefault(f"{place}: {type(error).__name__}: {str(error)[:100]}", []).append(seed)
    assert not bad, "\n".join(f"{what} (seeds {seeds[:5]})" for what, seeds in bad.items())
    assert len(seeds) < 50 or min(ends["read"], ends["refused"]) > 0.02 * len(seeds), ends


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_few_changed_files(name: str, tmp_path: Path) -> None:
    check(SUBJECTS[name], tmp_path, range(5))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", SUBJECTS)
def test_thousands_of_changed_files(name: str, tmp_path: Path) -> None:
    check(SUBJECTS[name], tmp_path, range(SUBJECTS[name].count))
