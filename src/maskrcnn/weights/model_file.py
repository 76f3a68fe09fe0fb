"""The model file: one safetensors file whose metadata holds the config, the categories and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from maskrcnn.config import Config, config_from_dict, config_to_dict
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN

METADATA_KEY = "maskrcnn"
FORMAT = 1


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


def open_model(path: Path | str) -> tuple[MaskRCNN, Config, dict[str, Any]]:
    """Builds the network that a model file describes and fills it: the network in evaluation mode, its config
    and provenance.

    Raises:
        WeightsError: the file is missing, truncated, of another kind, or does not fit its own config.
    """
    checkpoint = read_checkpoint(path)
    tensors, metadata = checkpoint.tensors, checkpoint.extra
    if METADATA_KEY not in metadata:
        raise WeightsError(
            f"{path}: expected a model file of this package, found one without its header "
            f"({len(tensors)} tensors); backbone weights go to `maskrcnn train --weights`"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
        version, stored = int(header["format"]), dict(header["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: the header of the model file cannot be read ({error}); get the file again"
        ) from None
    if version > FORMAT:
        raise WeightsError(f"{path}: model file format {version}, this version reads up to {FORMAT}; upgrade maskrcnn")
    try:
        config = config_from_dict(stored)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}; was the file written by a newer version?") from None
    network = build_model(config)
    fill(network, tensors, str(path))
    return network.eval(), config, header.get("provenance", {})


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a module of exactly the same names and shapes.

    Raises:
        WeightsError: names are missing or too many, or a shape differs; lists them.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for what, names in (("missing", missing), ("surplus", surplus), ("of another shape", sorted(wrong)))
        if names
    ]
    if problems:
        raise WeightsError(f"{source}: the tensors do not fit the model: {'; '.join(problems)}")
    module.load_state_dict(dict(tensors))
