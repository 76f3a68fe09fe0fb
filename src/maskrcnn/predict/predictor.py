"""A model with everything needed to use it: what `maskrcnn.load` returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.config.conventions import PixelRules
from maskrcnn.errors import ConfigError
from maskrcnn.files.atomic import check_file
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import Precision, living_threads, resolve_precision, usable_device
from maskrcnn.predict.backend import Backend, TorchBackend
from maskrcnn.predict.exported import ExportedBackend, ExportFormat, exported_format, open_engine
from maskrcnn.predict.images import collate_prepared, postprocess, prepare
from maskrcnn.predict.pipeline import ImageLike, predict_images
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import Frame
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.values import is_number
from maskrcnn.weights.model_file import read_header, save_model
from maskrcnn.weights.open import open_weights

LARGEST_SIDE = 10**9  # pixels: more than any image has
SHORT_SIDE = "short_side_of_training_images"  # in `Predictor.provenance`: their median in pixels


class Detected(NamedTuple):
    """The detections of a batch, and the frames that map them to the original images."""

    detections: Detections
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Predictor:
    """Finds the objects of images: a `Detector` (`maskrcnn.predict.pipeline`).

    Attributes:
        backend: computes the detections; a `TorchBackend` holds the network.
        config: every call reads the thresholds and limits of `config.model.detect`.
        provenance: the origin of the weights, from the model file.
    """

    backend: Backend
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.config.categories)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The score of each class from which on an object is worth showing: the best one that an evaluation during
        training has found, or 0.5."""
        found = self.provenance.get("thresholds")
        count = self.config.model.num_classes
        known = found if isinstance(found, list) and len(found) == count else [None] * count
        return tuple(float(least) if is_number(least) and 0 <= least <= 1 else 0.5 for least in known)

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def precision(self) -> str:
        """The precision in which the network computes: fp32, bf16 or fp16."""
        return self.backend.computes_in

    @property
    def network(self) -> MaskRCNN:
        """The network of a `TorchBackend`.

        Raises:
            ConfigError: the backend is another one.
        """
        if not isinstance(self.backend, TorchBackend):
            raise ConfigError(
                f"expected a TorchBackend, found a {type(self.backend).__name__}, which holds no network of PyTorch"
            )
        return self.backend.network

    def with_detections(self, most: int) -> Predictor:
        """The same model with another limit of detections an image."""
        detect = replace(self.config.model.detect, max_detections=most)
        return replace(self, config=replace(self.config, model=replace(self.config.model, detect=detect)))

    def predict(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 1) -> list[Instances]:
        """Finds objects in images of any size.

        Args:
            images: paths, PIL images or (H, W, 3) uint8 RGB arrays, one or several. A model of channels takes
                (H, W, C) arrays of any dtype.
            batch_size: number of images that pass through the network together.

        Returns:
            A list with one `Instances` for each image, in the order of the images.

        Raises:
            ConfigError: `batch_size` is no whole number from 1 to `LARGEST_BATCH`.
            ImageError: an image cannot be read, or something else is given.
        """
        return predict_images(self, images, batch_size, self.config.image.channel_names)

    def prepare(self, image: np.ndarray) -> tuple[Tensor, Frame]:
        """The network input of an image, (H, W, 3) uint8 RGB or (H, W, C) of a model of channels, and its frame."""
        return prepare(image, self.config)

    def detect(self, prepared: Sequence[tuple[Tensor, Frame]]) -> Detected:
        """The detections of a batch, on the backend's device and in pixels of the network input."""
        batch = collate_prepared(prepared, self.config, static_shapes=self.backend.static_shapes)
        return Detected(self.backend.detect(batch, self.config.model.detect), batch.frames)

    def finish(self, found: Detected) -> list[Instances]:
        """The objects of each image of a batch, in pixels of the original image."""
        return postprocess(found.detections, found.frames, self.config)

    def save(self, path: Path | str) -> None:
        """Writes the model file.

        Raises:
            ConfigError: the backend is no `TorchBackend`, or the file cannot be written.
        """
        check_file(path)
        save_model(path, self.network, self.config, self.provenance)


def load(
    source: Path | str,
    device: str | torch.device | None = None,
    *,
    config_file: Path | str | None = None,
    allow_partial: bool = False,
    part: str | None = None,
    precision: Precision = "auto",
    compile: bool = False,
    threads: int | None = None,
) -> Predictor:
    """Opens a model file, a checkpoint of another framework, or an exported network.

    A checkpoint keeps the rules of its framework.

    Args:
        source: a file, a URL, a name of `maskrcnn weights list`, or a file or folder that `maskrcnn export` wrote.
        device: by default the first GPU if there is one, else the CPU.
        config_file: config file of the framework that wrote the checkpoint. Without it, the shapes of the tensors and
            the defaults of the framework decide, and `provenance["assumed"]` lists what was assumed.
        allow_partial: accept missing tensors, which become random, and unexpected ones, which are left out.
        part: which weights to take if the file holds several, such as `teacher` or `model_ema`: the name of an entry,
            or the beginning of tensor names, up to a dot.
        precision, compile: as in `TorchBackend`. `auto` may choose bf16; `fp32` gives the exact results.
        threads: threads of the network on a CPU. In PyTorch this is a setting of the whole process. None leaves it to
            the engine.

    Raises:
        WeightsError: the file cannot be opened as a model.
        ConfigError: the config file cannot be followed, the machine has no such device, the precision is unknown, or
            an exported network has no such setting.
        MissingPackageError: the engine of an exported network is not installed.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"expected 1 thread or more, found {threads}")
    target = usable_device(device)
    resolve_precision(precision, target)
    form = exported_format(source)
    if form is not None:
        given = {"config_file": config_file, "part": part, "device": device, "compile": compile}
        other = [f"{name} {value}" for name, value in given.items() if value and str(value) != "cpu"]
        if other:
            raise ConfigError(
                f"{source}: an exported network holds its config and runs on the CPU, found {other[0]}; leave it out"
            )
        return load_exported(Path(source), form, threads=threads, precision=precision)
    if threads is not None:
        torch.set_num_threads(threads)
    with living_threads():
        network, config, provenance = open_weights(source, config_file, allow_partial=allow_partial, part=part)
        return Predictor(TorchBackend(network.to(target), precision, compile), config, provenance)


def load_exported(
    path: Path, form: ExportFormat, *, threads: int | None = None, precision: Precision = "auto"
) -> Predictor:
    """Opens a network that `maskrcnn export` wrote; arguments and errors as in `predict.exported.open_engine`."""
    graph = open_engine(path, form, threads=threads, precision=precision)
    config, provenance = read_header(graph.header, path)
    backend = ExportedBackend(graph.run, config.model.detect, graph.resizes, graph.computes_in)
    if graph.resizes:  # the graph takes images as they are, and so its boxes are in their pixels
        image = replace(config.image, scale=1.0, long_side=LARGEST_SIDE, fixed_size=None)
        config = replace(config, image=image, conventions=replace(config.conventions, pixels=PixelRules()))
    return Predictor(backend, config, provenance)
