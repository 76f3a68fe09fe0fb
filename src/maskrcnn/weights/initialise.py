"""What training begins from: another model, or a backbone trained on ImageNet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskrcnn.config import Config, KeypointHeadConfig, ModelConfig, TimmConfig, config_from_dict, config_to_dict
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.backbones import check_rules, fill_backbone, read_backbone, with_rules_of
from maskrcnn.weights.imagenet import imagenet_file, is_file, load_timm
from maskrcnn.weights.open import holds_detector, open_weights

# Layers with a row for each class, which another set of classes cannot use.
CLASS_LAYERS = re.compile(
    r"^roi_heads\.(box\.heads\.\d+\.(class_logits|deltas)|mask\.(heads\.\d+|coarse_head)\.predictor|mask\.point_head)\."
)


def initialise(network: MaskRCNN, config: Config, source: Path | str) -> str:
    """Fills a new network from a whole detector (all but the class layers where the categories differ) or from the
    weights of a backbone.

    Args:
        source: what `open_weights` opens, ImageNet weights as a file, or a name in torchvision's list of these.

    Returns:
        What was done, in words.

    Raises:
        WeightsError: the file cannot be read or does not fit.
        ConfigError: a backbone was trained by other rules than the config has.
    """
    if not holds_detector(source):
        if isinstance(network.backbone, TimmBackbone):
            return load_timm(network.backbone, source)
        file = read_backbone(read_checkpoint(imagenet_file(source)))
        check_rules(config, file)
        return fill_backbone(_whole_backbone(network), file, source)
    other, other_config, _ = open_weights(source)
    same_classes = other_config.categories == config.categories
    own, given = network.state_dict(), other.state_dict()
    for name, value in own.items():
        if not same_classes and CLASS_LAYERS.match(name):
            continue
        if name not in given or given[name].shape != value.shape:
            found = tuple(given[name].shape) if name in given else "nothing"
            raise WeightsError(
                f"{source}: {name} should be {tuple(value.shape)}, found {found}; "
                "train with the preset and model settings that the file was made with"
            )
        with torch.no_grad():
            value.copy_(given[name])
    kept = "" if same_classes else ", class layers new"
    return f"weights of {source}{kept}"


def with_conventions(config: Config, source: Path | str) -> Config:
    """The config with the model and image settings and the conventions of the detector that training begins from,
    wherever its own are the defaults: a detector is used as it was trained. A backbone alone brings the mean and
    standard deviation of the pixels, and if it has them its strides and the padding of its stem.

    Which heads the network has is not changed, nor how it is trained; the categories are the detector's.

    Raises:
        WeightsError: as of `initialise`.
    """
    if not holds_detector(source):
        if isinstance(config.model.backbone, TimmConfig) or not is_file(source):  # torchvision's own rules are ours
            return config
        return with_rules_of(config, read_backbone(read_checkpoint(imagenet_file(source))))
    other = open_weights(source)[1]
    # Mapped as dictionaries: settings of another kind of backbone, or of a head that one of the two lacks, stay.
    mine, theirs, usual = (config_to_dict(one) for one in (config, other, Config()))
    keypoints = config_to_dict(Config(model=ModelConfig(keypoint_head=KeypointHeadConfig())))
    usual["model"]["keypoint_head"] = keypoints["model"]["keypoint_head"]
    merged = {part: _merged(mine[part], theirs[part], usual[part]) for part in ("model", "image", "conventions")}
    merged["model"]["num_classes"] = theirs["model"]["num_classes"]
    return config_from_dict(mine | merged | {"categories": theirs["categories"]})


def _merged(mine: Any, theirs: Any, usual: Any) -> Any:
    """`theirs` where `mine` is what is usual, by the leaves of nested dictionaries with the same keys."""
    if not isinstance(mine, dict) and not isinstance(theirs, dict):
        return theirs if mine == usual else mine
    if not (isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys()):
        return mine
    defaults = usual if isinstance(usual, dict) else {}
    return {name: _merged(mine[name], theirs[name], defaults.get(name)) for name in mine}


def _whole_backbone(network: MaskRCNN) -> nn.Module:
    """The ResNet with all its stages, of which C4 keeps the last in the head."""
    shared_head = network.roi_heads.pooler.shared_head
    if isinstance(shared_head, nn.Identity):
        return network.backbone
    whole = nn.Module()
    for name, part in (*network.backbone.named_children(), ("res5", shared_head)):
        whole.add_module(name, part)
    return whole
