"""The model file: a safetensors file whose metadata holds the config with the categories, and the provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from maskrcnn.config import Config, config_from_dict, config_to_dict
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model, tensors_of
from maskrcnn.models.mask_rcnn import MaskRCNN

METADATA_KEY = "maskrcnn"
FORMAT = 1


@dataclass(frozen=True)
class SavedModel:
    """A detector that was read from a file, before its network is built.

    Attributes:
        source: the file, address or name that it was read from.
        state: tensors by our names.
        provenance: the origin of the weights, in JSON types.
    """

    source: str
    config: Config
    state: Mapping[str, Tensor]
    provenance: dict[str, Any]

    def check(self) -> None:
        """Refuses tensors that do not fit the config, which is part of the file and may describe a network of any size.

        This takes no memory.

        Raises:
            WeightsError: they do not fit, or the config cannot be built.
        """
        try:
            expected = tensors_of(self.config)
        except ConfigError as error:
            raise WeightsError(f"{self.source}: {error}") from None
        check_fit(expected, self.state, self.source)

    def network(self) -> MaskRCNN:
        """A network with these weights, in evaluation mode.

        Raises:
            WeightsError: the tensors do not fit the config, or the config cannot be built.
        """
        self.check()
        network = build_model(self.config)
        fill(network, self.state, self.source)
        return network.eval()


def save_model(
    path: Path | str, network: MaskRCNN, config: Config, provenance: Mapping[str, Any], *, half: bool = False
) -> None:
    """Writes the network's parameters and buffers, its config and their provenance.

    Args:
        provenance: the origin of the weights (version, data, steps, results), in JSON types.
        half: store float16 numbers. The network that is built from them has float32 parameters, as always.

    Raises:
        WeightsError: a number does not fit into float16.
        OSError: the disk is full or the folder is not writable. An existing file stays unchanged.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        infinite = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
        if infinite:
            raise WeightsError(f"{path}: {infinite[0]} holds numbers above 65,504, which float16 lacks: write float32")
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: header_of(config, provenance)})


def header_of(config: Config, provenance: Mapping[str, Any]) -> str:
    """The metadata of a model file and of an exported one, as JSON."""
    return json.dumps({"format": FORMAT, "config": config_to_dict(config), "provenance": dict(provenance)})


def is_model_file(checkpoint: Checkpoint) -> bool:
    """Whether `save_model` wrote the file."""
    return METADATA_KEY in checkpoint.extra


def is_training_checkpoint(checkpoint: Checkpoint) -> bool:
    """Whether the training of this package wrote the file, `last.ckpt` of a run."""
    return {"config", "origin", "average_updates"} <= checkpoint.extra.keys()


def saved_model(checkpoint: Checkpoint, source: Path | str) -> SavedModel:
    """The model in a model file or a training checkpoint; `is_model_file` or `is_training_checkpoint` must hold.

    Raises:
        WeightsError: the header cannot be read, or its config is not valid.
    """
    if is_training_checkpoint(checkpoint):
        origin = {"initial_weights": checkpoint.extra["origin"], "step": checkpoint.extra.get("step")}
        config = _config(checkpoint.extra["config"], source)
        return SavedModel(str(source), config, checkpoint.tensors, origin)
    config, provenance = read_header(checkpoint.extra[METADATA_KEY], source)
    return SavedModel(str(source), config, checkpoint.tensors, provenance)


def read_header(text: str, source: Path | str) -> tuple[Config, dict[str, Any]]:
    """The config and the provenance in what `header_of` wrote.

    Raises:
        WeightsError: the header cannot be read, or its config is not valid.
    """
    try:
        header = json.loads(text)
        version, stored = int(header["format"]), dict(header["config"])
        provenance = dict(header.get("provenance", {}))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise WeightsError(
            f"{source}: the header of the model file cannot be read ({reason}); copy or download the file again"
        ) from None
    if version > FORMAT:
        raise WeightsError(
            f"{source}: found model file format {version}, this version reads formats up to {FORMAT}; upgrade maskrcnn"
        )
    return _config(stored, source), provenance


def _config(stored: Any, source: Path | str) -> Config:
    if not isinstance(stored, dict):
        raise WeightsError(f"{source}: expected settings by name, found {type(stored).__name__}; the file is damaged")
    try:
        return config_from_dict(stored)
    except ConfigError as error:
        raise WeightsError(f"{source}: {error}; was the file written by a newer version?") from None


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a module that has exactly the same names and shapes.

    Raises:
        WeightsError: lists the tensors that are missing, unexpected or of another shape, or that hold NaN or infinity.
    """
    check_fit(module.state_dict(), tensors, source)
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise WeightsError(
            f"{source}: expected finite numbers, found NaN or infinity in {len(wrong)} of {len(tensors)} tensors, "
            f"first: {wrong[0]}; the training has diverged, so give an earlier file of it"
        )
    module.load_state_dict(dict(tensors))


def check_fit(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses tensors by name that are not exactly the expected ones.

    Raises:
        WeightsError: lists the tensors that are missing, unexpected or of another shape.
    """
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    complex_numbers = sorted(name for name, value in tensors.items() if value.is_complex())
    problems = [
        f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", sorted(wrong)),
            ("of complex numbers", complex_numbers),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"{source}: the tensors do not fit the model: {'; '.join(problems)}")
