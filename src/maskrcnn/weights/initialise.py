"""What training begins from: another model, or a backbone trained on ImageNet."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.imagenet import load_backbone, load_timm
from maskrcnn.weights.model_file import METADATA_KEY, open_model, read_safetensors

# Layers with a row for each class, which another set of classes cannot use.
CLASS_LAYERS = re.compile(
    r"^roi_heads\.(box\.(head|heads\.\d)\.(class_logits|deltas)|mask\.(head|coarse_head)\.predictor|mask\.point_head)\."
)


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
        if isinstance(network.backbone, TimmBackbone):
            return load_timm(network.backbone, source)
        return load_backbone(_whole_backbone(network), source)
    other, other_config, _ = open_model(path)
    same_classes = other_config.categories == config.categories
    own, given = network.state_dict(), other.state_dict()
    for name, value in own.items():
        if not same_classes and CLASS_LAYERS.match(name):
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


def _whole_backbone(network: MaskRCNN) -> nn.Module:
    """The ResNet with all its stages, of which C4 keeps the last in the head."""
    shared_head = network.roi_heads.pooler.shared_head
    if isinstance(shared_head, nn.Identity):
        return network.backbone
    whole = nn.Module()
    for name, part in (*network.backbone.named_children(), ("res5", shared_head)):
        whole.add_module(name, part)
    return whole
