"""The model file: one safetensors file whose metadata holds the config, the categories and where it came from."""

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
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN

METADATA_KEY = "maskrcnn"
FORMAT = 1


@dataclass(frozen=True)
class SavedModel:
    """A whole detector as a file holds it, for which no network has been built yet.

    Attributes:
        source: the file, address or name that it came from.
        state: tensors by our names.
        provenance: how the weights came to be, JSON types.
    """

    source: str
    config: Config
    state: Mapping[str, Tensor]
    provenance: dict[str, Any]

    def network(self) -> MaskRCNN:
        """A network with these weights, in evaluation mode.

        Raises:
            WeightsError: the tensors do not fit the config.
        """
        network = build_model(self.config)
        fill(network, self.state, self.source)
        return network.eval()


def save_model(path: Path | str, network: MaskRCNN, config: Config, provenance: Mapping[str, Any]) -> None:
    """Writes the network's parameters and buffers, float32, with everything needed to use them.

    Args:
        provenance: JSON types; how the weights came to be (version, data, steps, results).

    Raises:
        OSError: the disk is full or the folder is not writable; a file that was there stays as it was.
    """
    header = {"format": FORMAT, "config": config_to_dict(config), "provenance": dict(provenance)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(header)})


def is_model_file(checkpoint: Checkpoint) -> bool:
    """Whether a file that has been read is one that `save_model` wrote."""
    return METADATA_KEY in checkpoint.extra


def saved_model(checkpoint: Checkpoint, source: Path | str) -> SavedModel:
    """The model in a model file that has been read; `is_model_file` must hold.

    Raises:
        WeightsError: the header cannot be read, or its config cannot be followed.
    """
    try:
        header = json.loads(checkpoint.extra[METADATA_KEY])
        version, stored = int(header["format"]), dict(header["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{source}: the header of the model file cannot be read ({error}); get the file again"
        ) from None
    if version > FORMAT:
        raise WeightsError(
            f"{source}: model file format {version}, this version reads up to {FORMAT}; upgrade maskrcnn"
        )
    try:
        config = config_from_dict(stored)
    except ConfigError as error:
        raise WeightsError(f"{source}: {error}; was the file written by a newer version?") from None
    return SavedModel(str(source), config, checkpoint.tensors, header.get("provenance", {}))


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a module of exactly the same names and shapes.

    Raises:
        WeightsError: names are missing or unexpected, or a shape differs; lists them.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", sorted(wrong)))
        if names
    ]
    if problems:
        raise WeightsError(f"{source}: the tensors do not fit the model: {'; '.join(problems)}")
    module.load_state_dict(dict(tensors))
