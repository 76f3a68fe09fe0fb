"""Prediction, ours beside torchvision's: the same weights, images and thresholds, in turns in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskrcnn.benchmark.agreement import Agreement, compare
from maskrcnn.benchmark.measure import (
    Comparison,
    Stopwatch,
    Track,
    environment,
    in_turns,
    no_track,
    open_device,
    quartiles,
)
from maskrcnn.benchmark.memory import Memory, compare_memory, memory_to_dict
from maskrcnn.benchmark.pair import Pair, make_pair, stored_ours, stored_theirs, v1_config
from maskrcnn.benchmark.settings import PredictSettings, Protocol
from maskrcnn.benchmark.stages import stage_seconds
from maskrcnn.config import Config
from maskrcnn.files.images import read_image
from maskrcnn.ops.device import in_precision
from maskrcnn.predict import Predictor, TorchBackend, preprocess, stream
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.tensors import to_device

T = TypeVar("T")
_IMAGES = "images.npz"
MOST_CHECKED = 4  # images of which the detections are compared before the clock runs


@dataclass(frozen=True)
class PredictReport:
    """
    Attributes:
        times: seconds of a batch, from (H, W, 3) uint8 arrays to each package's own detections.
        stages: seconds of each stage of ours for a batch, a value a round.
        network: seconds of our network alone, from a batch on the device to detections there, a value a round.
        from_files: images a second of ours from image files to run lengths, all stages beside one another.
        memory: of `ours` and of `torchvision`; empty where it was not measured.
    """

    settings: PredictSettings
    environment: dict[str, Any]
    agreement: Agreement
    times: Comparison
    stages: dict[str, list[float]]
    network: list[float]
    from_files: float
    memory: dict[str, Memory | None]

    @property
    def from_memory(self) -> float:
        """Images a second of our network alone."""
        return self.settings.batch_size / float(np.median(self.network))

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": "predict",
            "environment": self.environment,
            "settings": asdict(self.settings),
            "agreement": self.agreement.to_dict(),
            "seconds": self.times.to_dict(),
            "detections_per_image": self.agreement.ours / self.agreement.images,
            "stages": {stage: quartiles(seconds) for stage, seconds in self.stages.items()},
            "network": quartiles(self.network),
            "images_per_second": {"network": self.from_memory, "files": self.from_files},
            "memory_bytes": memory_to_dict(self.memory),
        }


def bench_predict(
    files: Sequence[Path], settings: PredictSettings, protocol: Protocol, track: Track = no_track
) -> PredictReport:
    """Compares prediction of `files`, or of generated images where there are none.

    Raises:
        ConfigError: the device does not exist.
        ImageError: a file cannot be read.
    """
    device, config = open_device(protocol.device), config_of(settings)
    with tempfile.TemporaryDirectory(prefix="maskrcnn-bench-") as folder:
        files = list(files) or generate_images(Path(folder), settings.count, settings.size)
        measured = _in_this_process(Path(folder), files, settings, protocol, device, track)
        # Both networks have left this process: memory is measured alone.
        ours, theirs = (partial(side, Path(folder), config, protocol, device) for side in (_ours_alone, _theirs_alone))
        memory = compare_memory(ours, theirs, device) if protocol.memory else {}
    return PredictReport(settings, environment(device, protocol.precision), *measured, memory)


def config_of(settings: PredictSettings) -> Config:
    """The rules that both sides follow."""
    return v1_config(settings.short_side, settings.long_side, settings.detections, settings.score_threshold)


def _in_this_process(
    folder: Path,
    files: Sequence[Path],
    settings: PredictSettings,
    protocol: Protocol,
    device: torch.device,
    track: Track,
) -> tuple[Agreement, Comparison, dict[str, list[float]], list[float], float]:
    """What the report says in that order, but for memory; leaves the weights and the first batch in `folder`."""
    images, config, size = [read_image(file) for file in files], config_of(settings), settings.batch_size
    pair = make_pair(config, [as_float(images[0])])
    pair.store(folder)
    np.savez(folder / _IMAGES, *_batch(images, 0, size))
    pair = pair.to(device)
    predictor = Predictor(TorchBackend(pair.ours, protocol.precision, protocol.compile), config)
    agreement = check(pair, images[:MOST_CHECKED], compile=protocol.compile)

    def ours(number: int) -> list[Instances]:
        return predictor.predict(_batch(images, number, size), size)

    def theirs(number: int) -> list[dict[str, Tensor]]:
        with in_precision(protocol.precision, device):
            return predict_theirs(pair.theirs, _batch(images, number, size), device)

    times = in_turns(ours, theirs, protocol, device, track)
    batches = [_batch(files, number, size) for number in range(len(files))]
    stages = stage_seconds(predictor, batches, protocol, track)
    network = network_seconds(predictor, _batch(images, 0, size), protocol)
    return agreement, times, stages, network, files_per_second(predictor, files, size, protocol, track)


def network_seconds(predictor: Predictor, images: Sequence[np.ndarray], protocol: Protocol) -> list[float]:
    """Of one batch that lies on the device, a value a round."""
    watch = Stopwatch(predictor.device)
    batch = to_device(preprocess(images, predictor.config, static_shapes=protocol.compile), predictor.device)
    seconds = [
        watch.time(lambda: predictor.backend.detect(batch, predictor.config.model.detect))
        for _ in range(protocol.warmup + protocol.rounds)
    ]
    return seconds[protocol.warmup :]


def files_per_second(predictor: Predictor, files: Sequence[Path], size: int, protocol: Protocol, track: Track) -> float:
    """Of an endless round through the files, from the first reading to the last run lengths."""
    items = _batch(files, 0, protocol.rounds * size)
    done = stream(predictor, items, read_image, lambda file, image, found: len(found), batch_size=size)
    start = time.perf_counter()
    for _ in zip(track(range(len(items)), "from files"), done, strict=True):
        pass
    return len(items) / (time.perf_counter() - start)


def check(pair: Pair, images: Sequence[np.ndarray], *, compile: bool = False) -> Agreement:
    """Both sides' detections of each image, in float32 whatever is timed; ours compiled if that is."""
    device = pair.ours.pixel_mean.device
    predictor = Predictor(TorchBackend(pair.ours, compile=compile), pair.config)
    # TF32 convolutions, the default on GPUs, keep 10 bits: they would be compared instead of the networks.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if device.type == "cuda" else nullcontext()
    with exact:
        return compare(
            (predictor.predict(image)[0], predict_theirs(pair.theirs, [image], device)[0]) for image in images
        )


@torch.no_grad()
def predict_theirs(model: nn.Module, images: Sequence[np.ndarray], device: torch.device) -> list[dict[str, Tensor]]:
    """torchvision's detections of (H, W, 3) uint8 arrays, as its documentation feeds it."""
    return model([as_float(image).to(device) for image in images])


def as_float(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in 0..1, as torchvision takes images."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def generate_images(folder: Path, count: int, image_hw: tuple[int, int]) -> list[Path]:
    """Writes JPEG files of smooth coloured grounds with noise: contrast at every scale, as photographs have."""
    height, width = image_hw
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        cells = rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
        ground = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
        pixels = np.clip(ground + rng.normal(0, 20, ground.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{number:04d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=92)
    return files


def _batch(items: Sequence[T], number: int, size: int) -> list[T]:
    """Batch `number` of an endless round through the items."""
    return [items[(number * size + i) % len(items)] for i in range(size)]


def _ours_alone(folder: Path, config: Config, protocol: Protocol, device: torch.device) -> Callable[[], object]:
    """Our side, from what was left in `folder`, ready to predict its batch."""
    images, network = _stored_images(folder), stored_ours(folder, config, device)
    predictor = Predictor(TorchBackend(network, protocol.precision, protocol.compile), config)
    return partial(predictor.predict, images, len(images))


def _theirs_alone(folder: Path, config: Config, protocol: Protocol, device: torch.device) -> Callable[[], object]:
    images, model = _stored_images(folder), stored_theirs(folder, config, device)

    def call() -> object:
        with in_precision(protocol.precision, device):
            return predict_theirs(model, images, device)

    return call


def _stored_images(folder: Path) -> list[np.ndarray]:
    with np.load(folder / _IMAGES) as stored:
        return list(stored.values())
