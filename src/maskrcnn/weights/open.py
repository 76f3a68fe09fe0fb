"""Opens our model files and the checkpoints of other frameworks, which are recognised by their tensor names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint
from maskrcnn.files.parts import WEIGHTS_KEYS, choose_one
from maskrcnn.models.build import build_model, tensors_of
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.frameworks.coco_categories import named_as_coco
from maskrcnn.weights.frameworks.detectron import Detectron
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.families import BESIDE, FAMILIES, NO_MASK_RCNN, found_in, other_backbone
from maskrcnn.weights.frameworks.importer import Exporter, Imported, Importer, IncompleteError, listed
from maskrcnn.weights.frameworks.maskrcnn_benchmark import MaskRCNNBenchmark
from maskrcnn.weights.frameworks.matterport import Matterport
from maskrcnn.weights.frameworks.mmdetection import MMDetection
from maskrcnn.weights.frameworks.pytorch_mask_rcnn import PyTorchMaskRCNN
from maskrcnn.weights.frameworks.settings import setting
from maskrcnn.weights.frameworks.tensorpack import Tensorpack
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.model_file import SavedModel, is_model_file, is_training_checkpoint, saved_model
from maskrcnn.weights.named import local_file

EXPORTERS: tuple[Exporter, ...] = (Torchvision(), Detectron2(), MMDetection())
MAX_NEW = 300_000_000  # numbers in the missing tensors of a file; a whole ResNeXt-101 64x4d has 108 million
# The first one that recognises a file imports it.
IMPORTERS: tuple[Importer, ...] = (
    *EXPORTERS,
    Matterport(),
    PyTorchMaskRCNN(),
    MaskRCNNBenchmark(),
    Detectron(),
    Tensorpack(),
)

MAX_WRAPPERS = 4  # names around a detector, such as `model.` and `module.`


def open_weights(
    source: Path | str,
    config_file: Path | str | None = None,
    *,
    allow_partial: bool = False,
    part: str | None = None,
) -> tuple[MaskRCNN, Config, dict[str, Any]]:
    """Reads a file once and builds its network.

    Args:
        source: our model file, a checkpoint of one of `IMPORTERS`, an address, or a name of `maskrcnn weights list`.
        config_file, allow_partial: as in `detector_in`.
        part: as in `read_checkpoint`.

    Returns:
        The network in evaluation mode, its config, and its provenance.

    Raises:
        WeightsError: there is no such file or name, the file cannot be read, its model is not known, or the tensors do
            not fit the config.
        ConfigError: the config file cannot be read, or has a setting that is not supported.
    """
    checkpoint = read_checkpoint(local_file(source), part)
    saved = detector_in(checkpoint, source, config_file, allow_partial=allow_partial)
    return saved.network(), saved.config, saved.provenance


def detector_in(
    checkpoint: Checkpoint, source: Path | str, config_file: Path | str | None = None, *, allow_partial: bool = False
) -> SavedModel:
    """The detector in a checkpoint. Its config holds the rules of the framework that wrote it.

    Args:
        source: the file, address or name of the checkpoint, for messages and the provenance.
        config_file: a config of the framework, read as data. Without it the config in the checkpoint is used, and if
            there is none, the shapes and the framework's defaults.
        allow_partial: accepts missing and unexpected tensors. Missing tensors are initialised at random.

    Returns:
        The provenance of an imported model holds `imported_from`, `framework`, `assumed` (assumptions about what
        neither file states), `unused` (unexpected names in the file) and `new` (our names of the random tensors).

    Raises:
        WeightsError: the model is not known, or the tensors do not fit the config.
        ConfigError: the config file cannot be read, or has a setting that is not supported.
    """
    if is_model_file(checkpoint) or is_training_checkpoint(checkpoint):
        if config_file is not None:
            raise ConfigError(f"{config_file}: {source} is a model file of this package, which holds its own config")
        return saved_model(checkpoint, source)
    importer, detector = importer_of(checkpoint, source)
    settings = None if config_file is None else importer.read_settings(config_file)
    meta = checkpoint.extra.get("meta")
    config = settings or setting(meta, "cfg") or setting(meta, "config")
    backbone, advice = other_backbone(checkpoint.tensors, config)
    if backbone:
        raise WeightsError(
            f"{source}: expected a detector of {importer.name} with a ResNet, found one with {backbone}; {advice}"
        )
    try:
        imported, new = _imported(importer, detector, settings, allow_partial)
    except (WeightsError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from None
    provenance = {
        "imported_from": str(source),
        "framework": importer.name,
        "assumed": [*imported.assumed, *_left_out(checkpoint, detector)],
        "unused": list(imported.unused),
        "new": list(new),
    }
    return SavedModel(str(source), imported.config, imported.state, provenance)


def holds_detector(checkpoint: Checkpoint, source: Path | str) -> bool:
    """Whether `detector_in` can open a checkpoint. If not, it may hold a backbone.

    Raises:
        WeightsError: the checkpoint holds another kind of model, such as YOLO.
    """
    if is_model_file(checkpoint) or is_training_checkpoint(checkpoint) or _detectors(checkpoint):
        return True
    if found_in(FAMILIES, checkpoint.tensors)[1] == NO_MASK_RCNN:
        importer_of(checkpoint, source)  # raises the error
    return False


def importer_of(checkpoint: Checkpoint, source: Path | str) -> tuple[Importer, Checkpoint]:
    """The importer that recognises a checkpoint, and the part of the checkpoint that is the detector.

    Raises:
        WeightsError: no importer does, or there are several detectors. The message names the model if its tensor names
            are known.
    """
    detectors = _detectors(checkpoint)
    usual = [prefix for prefix in ("", *(f"{key}." for key in WEIGHTS_KEYS)) if prefix in detectors]
    if len(detectors) == 1 or usual:
        prefix = usual[0] if usual else next(iter(detectors))
        others = tuple(other for other in detectors if other != prefix)
        parts = checkpoint.parts + tuple(other.removesuffix(".") for other in others)
        return detectors[prefix], replace(checkpoint.below(prefix, others), parts=parts)
    if detectors:
        names = [prefix.removesuffix(".") for prefix in detectors]
        raise WeightsError(
            f"{source}: expected the weights of one network, found those of {listed(names)}; {choose_one(names)}"
        )
    known = ", ".join(importer.name for importer in IMPORTERS)
    family, advice = found_in(FAMILIES, checkpoint.tensors)
    found = f"the weights of {family}" if family else f"tensors named {listed(list(checkpoint.tensors)[:3])}, ..."
    raise WeightsError(
        f"{source}: expected a model file of this package or a Mask R-CNN of {known}, found {found}; "
        f"{advice or 'this version cannot import them'}"
    )


def _detectors(checkpoint: Checkpoint) -> dict[str, Importer]:
    """The prefixes of tensor names below which there is a detector, with its importer.

    A detector may lie below the name of a wrapper such as `model.`, with tensors of other modules beside it.
    """
    detectors: dict[str, Importer] = {}
    below: dict[str, list[str]] = {"": list(checkpoint.tensors)}
    for _ in range(MAX_WRAPPERS):
        deeper: dict[str, list[str]] = {}
        for prefix, names in below.items():
            importer = next((one for one in IMPORTERS if one.recognise(names)), None)
            if importer is not None:
                detectors[prefix] = importer
            for name in names:
                part, dot, rest = name.partition(".")
                if dot:
                    deeper.setdefault(f"{prefix}{part}.", []).append(rest)
        below = deeper
    return detectors


def _left_out(checkpoint: Checkpoint, detector: Checkpoint) -> list[str]:
    """Sentences about the tensors that do not belong to the detector."""
    others = [
        name
        for name in detector.dropped[len(checkpoint.dropped) :]
        if not name.startswith(tuple(f"{part}." for part in detector.parts))
    ]
    sentences = [f"{len(others)} tensors beside the detector are left out: {listed(others)}"] if others else []
    if detector.parts:
        sentences.append(
            f"the file holds other weights, which are left out: {listed(detector.parts)}; {choose_one(detector.parts)}"
        )
    return sentences


def _imported(
    importer: Importer, checkpoint: Checkpoint, settings: dict[str, Any] | None, allow_partial: bool
) -> tuple[Imported, tuple[str, ...]]:
    """The import, and our names of the missing tensors, which are initialised at random."""
    try:
        imported, problems = importer.import_checkpoint(checkpoint, settings), ""
    except IncompleteError as error:
        imported, problems = error.partial, f"{error}; "
    if imported.unused:
        problems += f"{len(imported.unused)} unexpected: {listed(imported.unused)}"
        belongs = found_in(BESIDE, imported.unused)[0]
        problems += f" ({belongs}); " if belongs else "; "
    if problems and not allow_partial:
        raise WeightsError(f"{problems}to continue without them: --allow-partial, or allow_partial=True in Python")
    if not imported.config.categories:
        config, sentences = named_as_coco(imported.config)
        imported = replace(imported, config=config, assumed=(*imported.assumed, *sentences))
    if not problems:
        return imported, ()
    new = {name: value for name, value in tensors_of(imported.config).items() if name not in imported.state}
    numbers = sum(value.numel() for value in new.values())
    if numbers > MAX_NEW:
        raise WeightsError(
            f"{problems}expected at most {MAX_NEW:,} numbers in the missing tensors, which become random, found "
            f"{numbers:,}: the shapes of the tensors in the file make no Mask R-CNN"
        )
    random = build_model(imported.config).state_dict()
    return replace(imported, state=random | imported.state), tuple(new)
