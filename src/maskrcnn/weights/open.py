"""A model from any file that can be read: our own, or of a framework that is recognised by the names of its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.frameworks.coco_categories import named_as_coco
from maskrcnn.weights.frameworks.detectron import names as detectron
from maskrcnn.weights.frameworks.detectron2 import names as detectron2
from maskrcnn.weights.frameworks.families import NO_MASK_RCNN, family_of
from maskrcnn.weights.frameworks.importer import Imported, IncompleteError, listed
from maskrcnn.weights.frameworks.maskrcnn_benchmark import names as maskrcnn_benchmark
from maskrcnn.weights.frameworks.matterport import names as matterport
from maskrcnn.weights.frameworks.mmdetection import names as mmdetection
from maskrcnn.weights.frameworks.tensorpack import names as tensorpack
from maskrcnn.weights.frameworks.torchvision import names as torchvision
from maskrcnn.weights.model_file import METADATA_KEY, open_model
from maskrcnn.weights.named import is_named, local_file, named_weights

# Each has recognise, read_config, import_checkpoint and export_state. The first that recognises a file imports it.
FRAMEWORKS: tuple[ModuleType, ...] = (
    torchvision,
    detectron2,
    mmdetection,
    matterport,
    maskrcnn_benchmark,
    detectron,
    tensorpack,
)
# Their files are opened, and none is written for them: nobody trains with them any more.
READ_ONLY: tuple[ModuleType, ...] = (matterport, maskrcnn_benchmark, detectron, tensorpack)


def name_of(framework: ModuleType) -> str:
    """`torchvision`, as it is written in provenance and on the command line."""
    return framework.__name__.split(".")[-2]


def open_weights(
    source: Path | str, config_file: Path | str | None = None, *, allow_partial: bool = False
) -> tuple[MaskRCNN, Config, dict[str, Any]]:
    """Builds the network that a file describes, fills it, and brings its rules along as a config.

    Args:
        source: our model file, a checkpoint of one of `FRAMEWORKS`, an address, or a name of `maskrcnn weights list`.
        config_file: the framework's own, read as data; without it, shapes and what is usual decide.
        allow_partial: accept missing and surplus tensors. What is missing stays random.

    Returns:
        The network in evaluation mode, its config, and where it comes from. Of an imported one the provenance holds
        `imported_from`, `framework`, `assumed` (what neither file said), `unused` (names that have no place) and
        `new` (our names of what stayed random).

    Raises:
        WeightsError: no such file or name, a file that cannot be read, of an unknown family, or that does not fit.
        ConfigError: the config file cannot be followed.
    """
    path = local_file(source)
    checkpoint = read_checkpoint(path)
    if METADATA_KEY in checkpoint.extra:
        if config_file is not None:
            raise ConfigError(f"{config_file}: {path} is a model file of this package, which holds its own config")
        return open_model(path)
    framework = framework_of(checkpoint, source)
    settings = None if config_file is None else framework.read_config(config_file)
    try:
        imported, new = _import(framework, checkpoint, settings, allow_partial)
    except (WeightsError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from None
    network = build_model(imported.config)
    network.load_state_dict(imported.state)
    provenance = {
        "imported_from": str(source),
        "framework": name_of(framework),
        "assumed": list(imported.assumed),
        "unused": list(imported.unused),
        "new": list(new),
    }
    return network.eval(), imported.config, provenance


def framework_of(checkpoint: Checkpoint, source: Path | str) -> ModuleType:
    """The importer that recognises a checkpoint.

    Raises:
        WeightsError: none does; says what the file is where its names tell.
    """
    for framework in FRAMEWORKS:
        if framework.recognise(checkpoint.tensors):
            return framework
    known = ", ".join(map(name_of, FRAMEWORKS))
    family, advice = family_of(checkpoint.tensors)
    found = f"the weights of {family}" if family else f"tensors named {listed(list(checkpoint.tensors)[:3])}, ..."
    raise WeightsError(
        f"{source}: expected a model file of this package or a Mask R-CNN of {known}, found {found}; "
        f"{advice or 'this version cannot import them'}"
    )


def holds_detector(source: Path | str) -> bool:
    """Whether `open_weights` is for this source: a detector, and not a backbone alone (of which a name that is neither
    a file nor in `maskrcnn weights list` is one).

    Raises:
        WeightsError: the file cannot be read, or is of a family that has nothing to do with a Mask R-CNN.
    """
    if not Path(source).exists():
        if str(source) in named_weights():
            return True
        if not is_named(source):
            return False
    checkpoint = read_checkpoint(local_file(source))
    if METADATA_KEY in checkpoint.extra or any(framework.recognise(checkpoint.tensors) for framework in FRAMEWORKS):
        return True
    if family_of(checkpoint.tensors)[1] == NO_MASK_RCNN:
        framework_of(checkpoint, source)
    return False


def _import(
    framework: ModuleType, checkpoint: Checkpoint, settings: dict[str, Any] | None, allow_partial: bool
) -> tuple[Imported, tuple[str, ...]]:
    """The import, and our names of the tensors that were missing and are random."""
    new: tuple[str, ...] = ()
    missing = ""
    try:
        imported = framework.import_checkpoint(checkpoint, settings)
    except IncompleteError as error:
        imported = _completed(framework, checkpoint, settings, error)
        new = tuple(name for name in imported.state if name not in error.state)
        missing = f"{error}; "
    if not imported.config.categories:
        config, of_classes = named_as_coco(imported.config)
        imported = replace(imported, config=config, assumed=(*imported.assumed, *of_classes))
    surplus = (
        f"{len(imported.unused)} have no place in the model: {listed(imported.unused)}; " if imported.unused else ""
    )
    if (missing or surplus) and not allow_partial:
        raise WeightsError(
            f"{missing}{surplus}to go on without them: `maskrcnn weights convert --allow-partial`, "
            "or allow_partial=True in Python"
        )
    return imported, new


def _completed(
    framework: ModuleType, checkpoint: Checkpoint, settings: dict[str, Any] | None, error: IncompleteError
) -> Imported:
    """The import of a checkpoint with random tensors in the place of those that it lacks."""
    random = framework.export_state(error.config, build_model(error.config).state_dict())
    fitting = {
        name: value
        for name, value in checkpoint.tensors.items()
        if name not in random or random[name].shape == value.shape
    }
    return framework.import_checkpoint(replace(checkpoint, tensors=random | fitting), settings)
