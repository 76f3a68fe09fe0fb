"""What training begins from: another model, or a backbone trained on ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.imagenet import load_backbone
from maskrcnn.weights.model_file import METADATA_KEY, open_model, read_safetensors

# Layers with a row for each class, which another set of classes cannot use.
CLASS_LAYERS = ("roi_heads.box_head.class_logits.", "roi_heads.box_head.deltas.", "roi_heads.mask_head.predictor.")


def initialise(network: MaskRCNN, config: Config, source: Path | str) -> str:
    """Fills a new network from a model file of this package (all but the class layers where the categories
    differ) or from ImageNet backbone weights.

    Returns:
        What was done, in words.

    Raises:
        WeightsError: the file cannot be read or does not fit.
    """
    path = Path(source)
    is_model = path.suffix == ".safetensors" and METADATA_KEY in read_safetensors(path)[1]
    if not is_model:
        return load_backbone(network.backbone, source)  # type: ignore[arg-type]
    other, other_config, _ = open_model(path)
    same_classes = other_config.categories == config.categories
    own, given = network.state_dict(), other.state_dict()
    for name, value in own.items():
        if not same_classes and name.startswith(CLASS_LAYERS):
            continue
        if name not in given or given[name].shape != value.shape:
            found = tuple(given[name].shape) if name in given else "nothing"
            raise WeightsError(
                f"{path}: {name} should be {tuple(value.shape)}, found {found}; "
                "train with the preset and model settings that the file was made with"
            )
        with torch.no_grad():
            value.copy_(given[name])
    kept = "" if same_classes else ", class layers new"
    return f"weights of {path}{kept}"
