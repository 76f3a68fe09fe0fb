"""A model from any file that can be read: our own, or of a framework that is recognised by the names of its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.frameworks.coco_categories import named_as_coco
from maskrcnn.weights.frameworks.detectron import Detectron
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.families import NO_MASK_RCNN, family_of
from maskrcnn.weights.frameworks.importer import Exporter, Imported, Importer, IncompleteError, listed
from maskrcnn.weights.frameworks.maskrcnn_benchmark import MaskRCNNBenchmark
from maskrcnn.weights.frameworks.matterport import Matterport
from maskrcnn.weights.frameworks.mmdetection import MMDetection
from maskrcnn.weights.frameworks.tensorpack import Tensorpack
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.model_file import SavedModel, is_model_file, saved_model
from maskrcnn.weights.named import local_file

# Weights are written for these.
EXPORTERS: tuple[Exporter, ...] = (Torchvision(), Detectron2(), MMDetection())
# The first that recognises a file imports it. Nobody trains any more with those that are only read.
IMPORTERS: tuple[Importer, ...] = (*EXPORTERS, Matterport(), MaskRCNNBenchmark(), Detectron(), Tensorpack())


def open_weights(
    source: Path | str, config_file: Path | str | None = None, *, allow_partial: bool = False
) -> tuple[MaskRCNN, Config, dict[str, Any]]:
    """Reads a file once, and builds the network that it describes.

    Args:
        source: our model file, a checkpoint of one of `IMPORTERS`, an address, or a name of `maskrcnn weights list`.
        config_file, allow_partial: as of `detector_in`.

    Returns:
        The network in evaluation mode, its config, and its provenance.

    Raises:
        WeightsError: no such file or name, a file that cannot be read, of an unknown family, or that does not fit.
        ConfigError: the config file cannot be followed.
    """
    checkpoint = read_checkpoint(local_file(source))
    saved = detector_in(checkpoint, source, config_file, allow_partial=allow_partial)
    return saved.network(), saved.config, saved.provenance


def detector_in(
    checkpoint: Checkpoint, source: Path | str, config_file: Path | str | None = None, *, allow_partial: bool = False
) -> SavedModel:
    """The detector in a file that has been read, with the rules of its framework as a config.

    Args:
        source: what the file came from, for messages and the provenance.
        config_file: the framework's own, read as data; without it, shapes and the framework's defaults decide.
        allow_partial: accept missing and unexpected tensors. What is missing is random.

    Returns:
        The provenance of an imported model holds `imported_from`, `framework`, `assumed` (what neither file said),
        `unused` (names that have no place) and `new` (our names of what is random).

    Raises:
        WeightsError: a file of an unknown family, or that does not fit.
        ConfigError: the config file cannot be followed.
    """
    if is_model_file(checkpoint):
        if config_file is not None:
            raise ConfigError(f"{config_file}: {source} is a model file of this package, which holds its own config")
        return saved_model(checkpoint, source)
    importer = importer_of(checkpoint, source)
    settings = None if config_file is None else importer.read_settings(config_file)
    try:
        imported, new = _imported(importer, checkpoint, settings, allow_partial)
    except (WeightsError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from None
    provenance = {
        "imported_from": str(source),
        "framework": importer.name,
        "assumed": list(imported.assumed),
        "unused": list(imported.unused),
        "new": list(new),
    }
    return SavedModel(str(source), imported.config, imported.state, provenance)


def holds_detector(checkpoint: Checkpoint, source: Path | str) -> bool:
    """Whether `detector_in` is for this file: a detector, and not a backbone alone.

    Raises:
        WeightsError: the file is of a family that has nothing to do with a Mask R-CNN.
    """
    if is_model_file(checkpoint) or any(importer.recognise(checkpoint.tensors) for importer in IMPORTERS):
        return True
    if family_of(checkpoint.tensors)[1] == NO_MASK_RCNN:
        importer_of(checkpoint, source)
    return False


def importer_of(checkpoint: Checkpoint, source: Path | str) -> Importer:
    """The importer that recognises a checkpoint.

    Raises:
        WeightsError: none does; says what the file is if its names tell.
    """
    for importer in IMPORTERS:
        if importer.recognise(checkpoint.tensors):
            return importer
    known = ", ".join(importer.name for importer in IMPORTERS)
    family, advice = family_of(checkpoint.tensors)
    found = f"the weights of {family}" if family else f"tensors named {listed(list(checkpoint.tensors)[:3])}, ..."
    raise WeightsError(
        f"{source}: expected a model file of this package or a Mask R-CNN of {known}, found {found}; "
        f"{advice or 'this version cannot import them'}"
    )


def _imported(
    importer: Importer, checkpoint: Checkpoint, settings: dict[str, Any] | None, allow_partial: bool
) -> tuple[Imported, tuple[str, ...]]:
    """The import, and our names of the tensors that were missing and are random."""
    try:
        imported, problems = importer.import_checkpoint(checkpoint, settings), ""
    except IncompleteError as error:
        imported, problems = error.partial, f"{error}; "
    if imported.unused:
        problems += f"{len(imported.unused)} have no place in the model: {listed(imported.unused)}; "
    if problems and not allow_partial:
        raise WeightsError(
            f"{problems}to continue without them: `maskrcnn weights convert --allow-partial`, "
            "or allow_partial=True in Python"
        )
    if not imported.config.categories:
        config, sentences = named_as_coco(imported.config)
        imported = replace(imported, config=config, assumed=(*imported.assumed, *sentences))
    if not problems:
        return imported, ()
    random = build_model(imported.config).state_dict()
    new = tuple(name for name in random if name not in imported.state)
    return replace(imported, state=random | imported.state), new
