"""Reads backbones that were trained on ImageNet by any framework, with the preprocessing and rules of that training.

A file is recognised by its tensor names: torchvision and timm (`layer1.0.conv1.weight`), Detectron2's pickles of MSRA
and FAIR (`res2.0.conv1.norm.weight`), Detectron (`res2_0_branch2a_w`), and the Keras files of ResNet-50 and 101 without
the classifier (`res2a_branch2a`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.config import Config, ResNetConfig, config_to_dict
from maskrcnn.config.plain import with_settings
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.frameworks import detectron
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.detectron import names as detectron_names
from maskrcnn.weights.frameworks.detectron2 import names as detectron2_names
from maskrcnn.weights.frameworks.importer import Renamed
from maskrcnn.weights.frameworks.layout import STEM, other_colours
from maskrcnn.weights.frameworks.matterport import layout as keras_layout
from maskrcnn.weights.frameworks.matterport import names as keras_names
from maskrcnn.weights.frameworks.names import NameTable
from maskrcnn.weights.frameworks.settings import setting
from maskrcnn.weights.frameworks.torchvision import names as torchvision_names
from maskrcnn.weights.model_file import fill

# A backbone has no classifier, no momentum of an optimiser and no batch counters of batch norm.
DROPPED = re.compile(
    r"^fc\.|\.num_batches_tracked$|^(pred|fc1000)_[wb]$|_momentum$|^(stem\.)?fc\.|^fc1000/|^predictions/"
)
MEAN, STD = "image.mean", "image.std"
IN_1X1, EPS = "model.backbone.stride_in_1x1", "model.backbone.norm_eps"
POOL = "conventions.features.pool_padding"
NO_STD = (1.0, 1.0, 1.0)
BACKBONE_STEM = STEM.removeprefix("backbone.")
MEAN_DETECTRON = (122.7717, 115.9465, 102.9801)
MEAN_CAFFE = (123.675, 116.28, 103.53)
MEAN_KERAS = (123.68, 116.779, 103.939)
STD_FAIR = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class BackboneFile:
    """
    Attributes:
        kind: the framework that wrote the file, for messages.
        state: tensors under the names of our backbone, for RGB input.
        rules: the settings that the backbone was trained with and that no tensor holds, by their names.
        folded: batch norm is stored as scale and shift only. Without statistics its training cannot be continued.
    """

    kind: str
    state: dict[str, Tensor]
    rules: dict[str, Any] = field(default_factory=dict)
    folded: bool = False


def read_backbone(checkpoint: Checkpoint) -> BackboneFile:
    """Reads the backbone of a file. It does not check whether the backbone fits a network.

    Raises:
        WeightsError: the file holds a ResNet of timm with parts that our ResNet does not have.
    """
    tensors = {name: value for name, value in checkpoint.tensors.items() if not DROPPED.search(name)}
    if "res2_0_branch2a_w" in tensors:
        return _from_detectron(tensors)
    if "res2.0.conv1.weight" in tensors:
        return _from_detectron2(tensors, checkpoint.extra.get("__author__"))
    if any("res2a_branch2a" in name for name in tensors):
        return _from_keras(checkpoint.tensors)
    extra = [name for name in tensors if re.match(r"conv1\.\d|layer\d\.\d+\.(se|downsample\.2|bn4|aa)\b", name)]
    if "layer1.0.conv1.weight" in tensors and extra:
        raise WeightsError(
            f"expected a plain ResNet, found one of timm with {extra[0]}, which our ResNet does not support: use a "
            "plain one such as resnet50, or set model.backbone.name to this network of timm"
        )
    # These follow our defaults: RGB, ImageNet's mean and standard deviation, the stride in the 3x3 convolution.
    return BackboneFile("torchvision or timm", _by_our_names(tensors, torchvision_names.BACKBONE))


def fill_backbone(backbone: nn.Module, file: BackboneFile, source: Path | str) -> str:
    """Copies a backbone into a ResNet, or into a module that holds a ResNet's stem and stages.

    Returns:
        A sentence that says where the weights came from.

    Raises:
        WeightsError: the tensors do not fit.
    """
    counters = {name: value for name, value in backbone.state_dict().items() if name.endswith(".num_batches_tracked")}
    fill(backbone, file.state | counters, str(source))
    return f"backbone from {Path(source).name}"


def whole_backbone(network: MaskRCNN) -> nn.Module:
    """The stem and all stages of a network's ResNet. A C4 network keeps the last stage in its heads."""
    stages, shared_head = dict(network.backbone.named_children()), network.roi_heads.pooler.shared_head
    return nn.ModuleDict(stages if isinstance(shared_head, nn.Identity) else stages | {"res5": shared_head})


def fill_timm(backbone: TimmBackbone, tensors: Mapping[str, Tensor] | None, source: Path | str) -> str:
    """Copies weights into a backbone of timm.

    Args:
        tensors: the tensors of timm's whole model. With None timm downloads its own weights.

    Returns:
        A sentence that says where the weights came from.

    Raises:
        WeightsError: the download failed, or the tensors do not fit.
    """
    import timm

    overlay = None
    if tensors is not None:
        whole: Any = timm.create_model(backbone.name)
        classifier = f"{whole.default_cfg['classifier']}."
        missing = [name for name in whole.state_dict() if name not in tensors and not name.startswith(classifier)]
        if missing:  # timm itself would leave these random
            raise WeightsError(
                f"{source}: {missing[0]} and {len(missing) - 1} more tensors of timm's {backbone.name} are missing; "
                "give a file of its whole model, or `timm` to download it"
            )
        overlay = {"state_dict": tensors}
    try:
        filled = timm.create_model(
            backbone.name,
            features_only=True,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            in_chans=backbone.in_channels,
        )
    except Exception as error:  # timm raises whatever its parts do
        raise WeightsError(f"{source} does not fill timm's {backbone.name}: {error}") from None
    backbone.net.load_state_dict(filled.state_dict())
    return f"backbone from {Path(source).name}"


def _by_our_names(tensors: Mapping[str, Tensor], table: NameTable) -> dict[str, Tensor]:
    """The tensors under the names of our backbone. A tensor without a counterpart keeps its name; `fill` refuses it."""
    names = table.our_names(tensors)
    return {_in_backbone(names.get(name, name)): value.to(torch.float32) for name, value in tensors.items()}


def _in_backbone(name: str) -> str:
    return name.replace(SHARED_HEAD, "res5.").removeprefix("backbone.")


def _from_detectron(tensors: Mapping[str, Tensor]) -> BackboneFile:
    tensors = {name: value for name, value in tensors.items() if name not in detectron_names.WITHOUT_EFFECT}
    state = _by_our_names(tensors, detectron_names.TABLE)
    theirs = {_in_backbone(our): name for name, our in detectron_names.TABLE.our_names(tensors).items()}
    state |= detectron.statistics(theirs, state)
    grouped = "conv1_gn_s" in tensors
    rules = {MEAN: MEAN_DETECTRON, STD: NO_STD, IN_1X1: _groups(tensors, "res2_0_branch2b_w") == 1 and not grouped}
    if not grouped:
        rules[EPS] = 0.0
    return BackboneFile("Detectron", _for_rgb(state), rules, folded=not grouped)


def _from_detectron2(tensors: Mapping[str, Tensor], author: Any) -> BackboneFile:
    """The networks of MSRA and FAIR read BGR. Those converted from torchvision read RGB; their author says so."""
    state = _by_our_names(tensors, detectron2_names.BACKBONE)
    if isinstance(author, str) and "torchvision" in author:
        return BackboneFile("torchvision, in Detectron2's names", state)
    groups = _groups(tensors, "res2.0.conv2.weight")
    rules = {MEAN: MEAN_CAFFE, STD: STD_FAIR if groups > 1 else NO_STD, IN_1X1: groups == 1}
    return BackboneFile("Detectron2 (MSRA, FAIR)", _for_rgb(state), rules)


def _from_keras(tensors: Mapping[str, Tensor]) -> BackboneFile:
    """Keras trains on BGR. Its convolutions have biases, and its first pooling is padded after the last pixel."""
    places = keras_names.places(tensors)
    ours = keras_names.TABLE.our_names(places.values())
    theirs = {ours[place]: path for path, place in places.items()}
    found = {name: tensors[path].to(torch.float32) for name, path in theirs.items()}
    file = Renamed(tuple(tensors), found, theirs, keras_names.TABLE)
    state, _ = keras_layout.fold_norms(file.converted(keras_layout.our_layout))
    rules = {MEAN: MEAN_KERAS, STD: NO_STD, IN_1X1: True, EPS: keras_layout.EPS, POOL: "after"}
    return BackboneFile("Keras", _for_rgb({_in_backbone(name): value for name, value in state.items()}), rules)


def _for_rgb(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # A stem of another shape is left to `fill`, which refuses it.
    stem = state.get(BACKBONE_STEM)
    return state if stem is None or stem.dim() != 4 else state | {BACKBONE_STEM: other_colours(stem)}


def _groups(tensors: Mapping[str, Tensor], name: str) -> int:
    """The groups of a 3x3 convolution that has as many input as output channels.

    Raises:
        WeightsError: the file holds no such convolution.
    """
    shape = tuple(tensors[name].shape) if name in tensors else ()
    if len(shape) != 4 or 0 in shape:
        raise WeightsError(f"expected the weights of a ResNet, found {name} of shape {shape}, which is no convolution")
    return shape[0] // shape[1]


def with_rules_of(config: Config, file: BackboneFile) -> Config:
    """The config, with the rules of a backbone in place of those settings that are at their defaults."""
    if not file.rules or not isinstance(config.model.backbone, ResNetConfig):
        return config
    own, defaults = config_to_dict(config), config_to_dict(Config())
    return with_settings(
        config,
        {name: value for name, value in file.rules.items() if setting(own, name) == setting(defaults, name)},
    )


def check_rules(config: Config, file: BackboneFile) -> None:
    """Raises ConfigError if a setting differs from the rule that a backbone was trained with."""
    values = config_to_dict(config)
    for name, value in file.rules.items():
        found = setting(values, name)
        if found != value:
            raise ConfigError(
                f"{name} is {found}, and these weights of {file.kind} were trained with {value}: set it to {value}"
            )
    backbone = config.model.backbone
    if file.folded and isinstance(backbone, ResNetConfig) and backbone.norm != "frozen_batch_norm":
        raise ConfigError(
            f"model.backbone.norm is {backbone.norm}, and these weights of {file.kind} hold no statistics of batch "
            "norm: set it to frozen_batch_norm"
        )
