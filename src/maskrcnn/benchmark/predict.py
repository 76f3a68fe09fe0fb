"""Compares our prediction with torchvision's: the same weights, images and thresholds, in turns in one process."""

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
from maskrcnn.benchmark.measure import Comparison, Sitting, Track, no_track, open_device, quartiles
from maskrcnn.benchmark.memory import Memory, SideName, compare_memory, memory_to_dict
from maskrcnn.benchmark.pair import make_pair, stored_ours, stored_theirs, v1_config
from maskrcnn.benchmark.settings import PredictSettings, Timing, require_engine
from maskrcnn.benchmark.stages import stage_seconds
from maskrcnn.config import Config
from maskrcnn.export.int8 import LEAST, Calibration
from maskrcnn.export.save import SUFFIXES, export_model
from maskrcnn.files.images import read_image
from maskrcnn.ops.device import Precision, in_precision
from maskrcnn.predict import Predictor, TorchBackend, preprocess, stream
from maskrcnn.predict.exported import ExportFormat
from maskrcnn.predict.predictor import load_exported
from maskrcnn.structures.tensors import to_device

_Item = TypeVar("_Item")
_IMAGES = "images.npz"
MAX_CHECKED = 4  # images whose detections are compared before the timing


@dataclass(frozen=True)
class PredictReport:
    """
    Attributes:
        times: seconds per batch, from (H, W, 3) uint8 arrays to each package's own detections.
        stages: seconds per batch of each of our stages, one value per round.
        network: seconds of our network alone, from a batch on the device to detections there, one value per round.
        from_files: our images per second from image files to run lengths, with all stages running concurrently.
        memory: of "ours" and "torchvision"; empty if it was not measured.
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
        """Images per second of our network alone."""
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


PredictFigures = tuple[Agreement, Comparison, dict[str, list[float]], list[float], float]  # the report's fields


def bench_predict(
    files: Sequence[Path], settings: PredictSettings, timing: Timing, track: Track = no_track
) -> PredictReport:
    """Compares the prediction on `files`, or on generated images if there are none.

    Raises:
        ConfigError: the device does not exist, or the backend does not compute there or in that way.
        ImageError: a file cannot be read.
    """
    require_engine(settings, timing)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    sitting = Sitting(timing, open_device(timing.device), track)
    with tempfile.TemporaryDirectory(prefix="maskrcnn-bench-") as name:
        folder = Path(name)
        count = max(settings.count, LEAST) if settings.int8 else settings.count
        files = list(files) or generate_images(folder, count, settings.size)
        measured = _in_this_process(folder, files, settings, sitting)
        # Both networks are freed by now, so that the memory of each is measured alone.
        alone = partial(_alone, folder, settings, timing, sitting.device)
        memory = compare_memory(alone, sitting.device) if timing.memory else {}
    return PredictReport(settings, sitting.environment(), *measured, memory)


def predict_config(settings: PredictSettings) -> Config:
    """The settings that both sides follow."""
    return v1_config(settings.short_side, settings.long_side, settings.detections, settings.score_threshold)


def _in_this_process(
    folder: Path, files: Sequence[Path], settings: PredictSettings, sitting: Sitting
) -> PredictFigures:
    """All figures except memory. Writes the weights and the first batch to `folder`."""
    images, config, size = [read_image(file) for file in files], predict_config(settings), settings.batch_size
    pair = make_pair(config, [as_float(images[0])])
    pair.store(folder)
    np.savez(folder / _IMAGES, *_batch(images, 0, size))
    pair = pair.to(sitting.device)
    if settings.backend == "torch":
        exact = Predictor(TorchBackend(pair.ours, compile=sitting.timing.compile), config)
        predictor = Predictor(TorchBackend(pair.ours, sitting.timing.precision, sitting.timing.compile), config)
    else:
        form, exported = exported_place(folder, settings)
        export_model(pair.ours, config, {}, exported, form, masks="probs")
        exact = our_exported(folder, settings, "fp32")
        if settings.int8:
            calibration = Calibration(files, track=lambda items, total: sitting.track(items, "calibrate"))
            export_model(pair.ours, config, {}, exported, form, masks="probs", calibration=calibration)
        predictor = our_exported(folder, settings, sitting.timing.precision)
    agreement = check(exact, pair.theirs, images[:MAX_CHECKED])
    theirs = partial(predict_theirs, pair.theirs, sitting.timing.precision)
    times = sitting.in_turns(
        lambda number: predictor.predict(_batch(images, number, size), size),
        lambda number: theirs(_batch(images, number, size)),
    )
    stages = stage_seconds(predictor, [_batch(files, number, size) for number in range(len(files))], sitting)
    network = network_seconds(predictor, _batch(images, 0, size), sitting)
    return agreement, times, stages, network, files_per_second(predictor, files, size, sitting)


def our_exported(folder: Path, settings: PredictSettings, precision: Precision) -> Predictor:
    """Our exported network in the folder, with as many threads as PyTorch has."""
    form, path = exported_place(folder, settings)
    return load_exported(path, form, threads=torch.get_num_threads(), precision=precision)


def exported_place(folder: Path, settings: PredictSettings) -> tuple[ExportFormat, Path]:
    """The format of our exported network, and its place in the folder."""
    assert settings.backend != "torch"
    form: ExportFormat = "torch" if settings.backend == "torch-package" else settings.backend
    return form, folder / f"model{SUFFIXES.get(form, '')}"


def network_seconds(predictor: Predictor, images: Sequence[np.ndarray], sitting: Sitting) -> list[float]:
    """Seconds of the network alone for a batch on the device, one value per round."""
    batch = preprocess(images, predictor.config, static_shapes=sitting.timing.compile)
    batch = to_device(batch, predictor.device)
    return list(sitting.times(lambda: predictor.backend.detect(batch, predictor.config.model.detect)))


def files_per_second(predictor: Predictor, files: Sequence[Path], size: int, sitting: Sitting) -> float:
    """Images per second from files to run lengths; the files are repeated for all rounds."""
    items = _batch(files, 0, sitting.timing.rounds * size)
    done = stream(predictor, items, read_image, lambda file, image, found: len(found), batch_size=size)
    start = time.perf_counter()
    for _ in zip(sitting.track(range(len(items)), "from files"), done, strict=True):
        pass
    return len(items) / (time.perf_counter() - start)


def check(predictor: Predictor, theirs: nn.Module, images: Sequence[np.ndarray]) -> Agreement:
    """Compares the detections of both sides in float32, which `predictor` must compute in."""
    # TF32 convolutions, the default on GPUs, have 10-bit mantissas: their errors would hide differences.
    on_gpu = predictor.device.type == "cuda"
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if on_gpu else nullcontext()
    with exact:
        return compare((predictor.predict(image)[0], predict_theirs(theirs, "fp32", [image])[0]) for image in images)


@torch.no_grad()
def predict_theirs(model: nn.Module, precision: Precision, images: Sequence[np.ndarray]) -> list[dict[str, Tensor]]:
    """torchvision's detections in (H, W, 3) uint8 arrays, as its documentation calls the model."""
    device = next(model.parameters()).device
    with in_precision(precision, device):
        return model([as_float(image).to(device) for image in images])


def as_float(image: np.ndarray) -> Tensor:
    """Converts (H, W, 3) uint8 to torchvision's image format, (3, H, W) float32 in 0..1."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def generate_images(folder: Path, count: int, image_hw: tuple[int, int]) -> list[Path]:
    """Writes JPEG files of smooth colours with noise, which have contrast at all scales as photographs do."""
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


def _batch(items: Sequence[_Item], number: int, size: int) -> list[_Item]:
    """Batch `number` of the items; after the last item comes the first one again."""
    return [items[(number * size + i) % len(items)] for i in range(size)]


def _alone(
    folder: Path, settings: PredictSettings, timing: Timing, device: torch.device, side: SideName
) -> Callable[[], object]:
    """A call by which one side alone predicts the batch in `folder`, with the weights there."""
    config = predict_config(settings)
    with np.load(folder / _IMAGES) as stored:
        images = list(stored.values())
    if side == "ours":
        if settings.backend == "torch":
            backend = TorchBackend(stored_ours(folder, config, device), timing.precision, timing.compile)
            predictor = Predictor(backend, config)
        else:
            predictor = our_exported(folder, settings, timing.precision)
        return partial(predictor.predict, images, len(images))
    return partial(predict_theirs, stored_theirs(folder, config, device), timing.precision, images)
