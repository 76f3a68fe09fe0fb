"""From images to instances: preprocessing, the network, and masks as run lengths.

Legend: B images, N instances of one image, D detection slots an image, K keypoints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn.config import Config, ImageConfig
from maskrcnn.errors import ImageError
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.boxes import clip, shorten, whole_images
from maskrcnn.ops.device import Precision, compiled, in_precision
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.resize import resize_image
from maskrcnn.structures.atomic import atomic_write
from maskrcnn.structures.detections import Detections, Instances
from maskrcnn.structures.image_file import as_rgb, read_image
from maskrcnn.structures.images import ImageBatch, canvas_of, exact_scale, place, stack_images, with_bars
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.structures.tensors import to_device
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import open_weights

LEGIBLE = 640  # pictures of smaller images are drawn enlarged towards this many pixels, so that labels can be read

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass
class Predictor:
    """A network with everything needed to use it: what `maskrcnn.load` returns.

    Attributes:
        network: in evaluation mode.
        config: thresholds and limits of `config.model.detect` are read at every call.
        provenance: how the weights came to be, from the model file.
        precision: of the network's arithmetic; `auto` is bf16 where the processor multiplies it natively.
        compile: compile the network for each size of a batch, of which there then are few (`canvas_of`); on CUDA its
            graphs are replayed.
    """

    network: MaskRCNN
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "fp32"
    compile: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.config.categories)

    @property
    def device(self) -> torch.device:
        return self.network.pixel_mean.device

    def with_detections(self, most: int) -> Predictor:
        """The same network with another limit of detections an image."""
        detect = replace(self.config.model.detect, max_detections=most)
        return replace(self, config=replace(self.config, model=replace(self.config.model, detect=detect)))

    def predict(self, images: Sequence[ImageLike], batch_size: int = 1) -> list[Instances]:
        """Finds objects in images of any size.

        Args:
            images: paths, PIL images, or (H, W, 3) uint8 RGB arrays.
            batch_size: how many pass through the network together.

        Raises:
            ImageError: an image cannot be read.
        """
        found: list[Instances] = []
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            arrays = [read_image(i) if isinstance(i, str | Path) else as_rgb(i) for i in chunk]
            found.extend(self.predict_arrays(arrays))
        return found

    def predict_arrays(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """As `predict`, for (H, W, 3) uint8 RGB arrays, all in one batch."""
        detections, windows = self.detect(images)
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return postprocess(detections, windows, sizes, self.config, self.names)

    def detect(self, images: Sequence[np.ndarray]) -> tuple[Detections, torch.Tensor]:
        """The network's answer to (H, W, 3) uint8 RGB arrays, on its device and in its pixels, and the (B, 4) windows
        in which the images lie there."""
        batch = to_device(preprocess(images, self.config.image, few=self.compile), self.device)
        run = self._compiled if self.compile else self.network.detect
        with in_precision(self.precision, self.device):
            return run(batch, self.config.model.detect), batch.windows

    @cached_property
    def _compiled(self) -> Callable[..., Detections]:
        return compiled(self.network.detect, self.device)

    def save(self, path: Path | str) -> None:
        save_model(path, self.network, self.config, self.provenance)


def load(
    source: Path | str,
    device: str | torch.device | None = None,
    *,
    config_file: Path | str | None = None,
    allow_partial: bool = False,
    precision: Precision = "auto",
    compile: bool = False,
) -> Predictor:
    """Opens a model: our model file, or a checkpoint of another framework, which keeps that framework's rules.

    Args:
        source: a file, an address, or a name of `maskrcnn weights list`.
        device: where to run; by default the first GPU if there is one, else the CPU.
        config_file: of the framework that wrote the checkpoint; without it, shapes and what is usual decide, and
            `provenance["assumed"]` says what was taken for granted.
        allow_partial: accept a checkpoint that lacks tensors, which then are random, or holds others.
        precision, compile: as `Predictor` has them. Where bf16 is native, `fp32` gives the exact results.

    Raises:
        WeightsError: the file cannot be opened as a model.
        ConfigError: the config file cannot be followed.
    """
    network, config, provenance = open_weights(source, config_file, allow_partial=allow_partial)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(network.to(target), config, provenance, precision, compile)


def preprocess(images: Sequence[np.ndarray], config: ImageConfig, *, few: bool = False) -> ImageBatch:
    """Resizes (H, W, 3) uint8 RGB arrays as `config` says and pads them to one batch, of one of few sizes if asked."""
    resized, windows = [], []
    for image in images:
        placed = place(image.shape[0], image.shape[1], config)
        factor = exact_scale(image.shape[0], image.shape[1], config)
        pixels = resize_image(torch.from_numpy(image).permute(2, 0, 1), placed.size_hw, config.kernel, factor)
        resized.append(with_bars(pixels, placed))
        windows.append(placed.window)
    size = config.fixed_size
    if few and size is None:
        size = canvas_of(max(i.shape[1] for i in resized), max(i.shape[2] for i in resized), config)
    batch = stack_images(resized, config.divisor, size)
    return batch if config.letterbox == "none" else replace(batch, unbarred=torch.tensor(windows))


def postprocess(
    detections: Detections,
    windows: torch.Tensor,
    original_hw: Sequence[tuple[int, int]],
    config: Config,
    names: tuple[str, ...],
) -> list[Instances]:
    """Brings detections back to the pixels of the original images; masks become run lengths here.

    Args:
        windows: (B, 4) where the images lie in the network input.
        original_hw: height and width of each original image.
    """
    original = torch.tensor(original_hw, dtype=torch.float32)
    origin, end = windows.cpu().to(torch.float32).split(2, dim=-1)
    # Boxes that end at the last pixel are stretched from the network's last pixel to that of the original.
    shorter = float(config.model.last_pixel)
    ratio = (original.flip(-1) - shorter) / (end - origin - shorter)
    if config.image.exact_scale:
        ratio = torch.tensor([[1 / (exact_scale(*size, config.image) or 1)] * 2 for size in original_hw])
    # Boxes of pixels are scaled as these pixels, and become edges after that.
    unread = float(config.model.pixel_boxes)
    boxes = shorten(detections.boxes.cpu() - origin.repeat(1, 2)[:, None], unread) * ratio.repeat(1, 2)[:, None]
    boxes = clip(shorten(boxes, -shorter - unread), whole_images(original))
    valid = detections.valid.cpu()
    if config.model.detect.whole_boxes:
        boxes = boxes.round()
        valid = valid & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    probs = None if detections.mask_probs is None else detections.mask_probs.cpu()
    keypoints = _keypoints_in_original(detections, origin, ratio)
    result = []
    for i, (found, size) in enumerate(zip(valid, original_hw, strict=True)):
        masks = None
        if probs is not None and config.model.mask_head is not None:
            counts = paste_to_runs(
                probs[i][found].numpy(),
                shorten(boxes[i][found], unread).numpy(),
                size,
                config.model.detect.mask_threshold,
                config.model.mask_head.paste,
            )
            masks = Masks([RLE(size, c) for c in counts], size)
        labels = detections.labels[i].cpu()[found].numpy()
        result.append(
            Instances(
                image_hw=size,
                boxes=boxes[i][found].numpy(),
                scores=detections.scores[i].cpu()[found].numpy(),
                labels=labels,
                masks=masks,
                names=tuple(names[label] for label in labels) if names else (),
                keypoints=None if keypoints is None else keypoints[i][found].numpy(),
                categories=config.categories,
            )
        )
    return result


def _keypoints_in_original(detections: Detections, origin: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor | None:
    """(B, D, K, 3) on the CPU, x and y in original pixels; `origin` and `ratio` are (B, 2), x and y."""
    if detections.keypoints is None:
        return None
    points, scores = detections.keypoints.cpu().split([2, 1], dim=-1)
    return torch.cat([(points - origin[:, None, None]) * ratio[:, None, None], scores], dim=-1)


def to_coco_results(instances: Instances, image_id: int | str, config: Config) -> list[dict[str, Any]]:
    """COCO results of one image: image_id, category_id, bbox (x, y, width, height), score, segmentation (RLE) and
    keypoints (x, y, score of each in a row, x and y as COCO's indices of pixels) of categories that name some."""
    ids = [category.id for category in config.categories] or list(range(1, config.model.num_classes + 1))
    pointed = [bool(category.keypoints) for category in config.categories] or [True] * config.model.num_classes
    results = []
    for i in range(len(instances)):
        x1, y1, x2, y2 = (round(float(edge), 3) for edge in instances.boxes[i])
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": ids[int(instances.labels[i])],
            "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
            "score": float(instances.scores[i]),
        }
        if instances.masks is not None:
            entry["segmentation"] = instances.masks[i].to_coco()
        if instances.keypoints is not None and pointed[int(instances.labels[i])]:
            points = instances.keypoints[i].astype(np.float64) - (PIXEL_CENTRE, PIXEL_CENTRE, 0)
            entry["keypoints"] = points.round(4).reshape(-1).tolist()
        results.append(entry)
    return results


@dataclass(frozen=True)
class FilesSummary:
    """What `predict_files` did: images read, objects found, files skipped with the reason, what was written."""

    images: int
    objects: int
    skipped: tuple[str, ...]
    results: Path
    pictures: Path | None


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    *,
    draw: bool = True,
    min_score: float = 0.5,
    strict: bool = False,
    track: Callable[[Iterable[Path]], Iterable[Path]] = iter,
) -> FilesSummary:
    """Predicts files one by one and writes `out/predictions.json` (COCO results, image ids counted from 1 in the
    order of `files`, each with its `file_name`) and, with `draw`, one picture a file.

    A file that cannot be read is reported on standard error and skipped, or refused with `strict`. Results
    found so far are written even when the run is interrupted.

    Args:
        min_score: objects below it are not drawn; predictions.json holds all.
        track: wraps the files, for a progress bar.

    Raises:
        ImageError: with `strict`, the first file that cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    skipped: list[str] = []
    count = 0
    target = out / "predictions.json"
    try:
        for image_id, file in enumerate(track(files), start=1):
            try:
                image = read_image(file)
            except ImageError as error:
                if strict:
                    raise
                skipped.append(str(error))
                print(f"skipped: {error}", file=sys.stderr)
                continue
            found = predictor.predict_arrays([image])[0]
            count += 1
            results.extend(
                {"file_name": str(file), **entry} for entry in to_coco_results(found, image_id, predictor.config)
            )
            if draw:
                _draw(image, found, out / f"{image_id:06d}_{file.stem}.png", min_score)
    finally:
        with atomic_write(target) as temporary:
            temporary.write_text(json.dumps(results))
    return FilesSummary(count, len(results), tuple(skipped), target, out if draw else None)


def _draw(image: np.ndarray, found: Instances, path: Path, min_score: float) -> None:
    from maskrcnn.visualise import draw

    enlarge = max(1, LEGIBLE // max(image.shape[:2]))
    with atomic_write(path) as temporary:
        Image.fromarray(draw(image, found, min_score=min_score, enlarge=enlarge)).save(temporary, format="PNG")
