"""Backbones trained on ImageNet, from files of any framework: their names in ours, and the rules they were trained by.

Told by their content: torchvision and timm (`layer1.0.conv1.weight`), Detectron2's pickles of MSRA and FAIR
(`res2.0.conv1.norm.weight`), Detectron's (`res2_0_branch2a_w`), and the Keras files of ResNet-50 and 101 without their
top (`res2a_branch2a`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.config import Config, ResNetConfig, config_from_dict, config_to_dict
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.detectron import names as detectron
from maskrcnn.weights.frameworks.detectron2 import names as detectron2
from maskrcnn.weights.frameworks.importer import other_colours
from maskrcnn.weights.frameworks.matterport import names as matterport
from maskrcnn.weights.imagenet import imagenet_file, torchvision_to_ours
from maskrcnn.weights.model_file import fill

# The classifier and the training counters of batch norm have no place in a backbone.
DROPPED = re.compile(
    r"^fc\.|\.num_batches_tracked$|^(pred|fc1000)_[wb]$|_momentum$|^(stem\.)?fc\.|^fc1000/|^predictions/"
)
STEM = "stem.conv.weight"
MEAN, STD = "image.mean", "image.std"
IN_1X1, EPS = "model.backbone.stride_in_1x1", "model.backbone.norm_eps"
POOL = "conventions.features.pool_padding"
# The last part of a path in a Keras file: of Keras 2, or of Keras 1 (`res2a_branch2a_W_1:0`), whose running_std is a
# variance.
KERAS = re.compile(
    r"(?:^|_)(kernel|W|bias|b|gamma|beta|moving_mean|running_mean|moving_variance|running_std)(?:_\d+)?(?::\d+)?$"
)
KERAS_1 = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
NO_STD = (1.0, 1.0, 1.0)
MEAN_DETECTRON = (122.7717, 115.9465, 102.9801)
MEAN_CAFFE = (123.675, 116.28, 103.53)
MEAN_KERAS = (123.68, 116.779, 103.939)
STD_FAIR = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class BackboneFile:
    """
    Attributes:
        kind: what wrote it, in words.
        state: by the names of our backbone, for RGB input.
        rules: the settings that it was trained with and that no tensor holds, by their names.
        folded: its batch norm is scale and shift alone, so that statistics cannot be trained on.
    """

    kind: str
    state: dict[str, Tensor]
    rules: dict[str, Any] = field(default_factory=dict)
    folded: bool = False


def read_backbone(checkpoint: Checkpoint) -> BackboneFile:
    """The backbone in a file; whether it fits a network is not asked.

    Raises:
        WeightsError: a ResNet that is built otherwise than ours.
    """
    tensors = {name: value for name, value in checkpoint.tensors.items() if not DROPPED.search(name)}
    if "res2_0_branch2a_w" in tensors:
        return _of_detectron(tensors)
    if "res2.0.conv1.weight" in tensors:
        return _of_detectron2(tensors, str(checkpoint.extra.get("__author__", "")))
    if any("res2a_branch2a" in name for name in tensors):
        return _of_keras(checkpoint.tensors)
    deep = [name for name in tensors if re.match(r"conv1\.\d|layer\d\.\d+\.(se|downsample\.2|bn4|aa)\b", name)]
    if "layer1.0.conv1.weight" in tensors and deep:
        raise WeightsError(
            f"a ResNet of timm with a part that ours has not ({deep[0]}): take one with the plain stem and blocks, "
            "such as resnet50, or set model.backbone.name to this network of timm"
        )
    # Trained as torchvision's: RGB, the usual mean and deviation, the stride in the 3x3 convolution.
    state = {torchvision_to_ours(name): value.to(torch.float32) for name, value in tensors.items()}
    return BackboneFile("torchvision or timm", state)


def load_backbone(backbone: nn.Module, source: Path | str) -> str:
    """Fills a backbone from a file of any kind that `read_backbone` knows, or from torchvision's weight list by name.

    Args:
        backbone: a ResNet, or its stem and stages under their names.
        source: as of `imagenet_file`.

    Returns:
        Where the weights came from, in words.

    Raises:
        WeightsError: no such file or name, the network cannot be reached, or the file does not fit.
    """
    return fill_backbone(backbone, read_backbone(read_checkpoint(imagenet_file(source))), source)


def fill_backbone(backbone: nn.Module, file: BackboneFile, source: Path | str) -> str:
    """As `load_backbone`, of a file that is read already."""
    expected = backbone.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")}
    fill(backbone, file.state | counters, str(source))
    return f"backbone from {Path(source).name}"


def _of_detectron(tensors: Mapping[str, Tensor]) -> BackboneFile:
    names = detectron.our_names(tensors)
    state: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in detectron.IDLE:
            continue
        our = names.get(name, name).replace(SHARED_HEAD, "res5.").removeprefix("backbone.")
        state[our] = value.to(torch.float32)
        if name.endswith("_bn_s"):  # the statistics are in scale and shift
            module = our.removesuffix(".weight")
            state[f"{module}.running_mean"] = torch.zeros_like(state[our])
            state[f"{module}.running_var"] = torch.ones_like(state[our])
    grouped = "conv1_gn_s" in tensors
    rules = {MEAN: MEAN_DETECTRON, STD: NO_STD, IN_1X1: _groups(tensors["res2_0_branch2b_w"]) == 1 and not grouped}
    if not grouped:
        rules[EPS] = 0.0
    return BackboneFile("Detectron", _for_rgb(state), rules, folded=not grouped)


def _of_detectron2(tensors: Mapping[str, Tensor], author: str) -> BackboneFile:
    """MSRA's and FAIR's networks read BGR; what Detectron2's own converter made of torchvision's says so itself."""
    names = detectron2.our_names([f"backbone.{name}" for name in tensors])
    state = {
        names.get(f"backbone.{name}", name).removeprefix("backbone."): value.to(torch.float32)
        for name, value in tensors.items()
    }
    if "torchvision" in author:
        return BackboneFile("torchvision, in Detectron2's names", state)
    groups = _groups(tensors["res2.0.conv2.weight"])
    rules = {MEAN: MEAN_CAFFE, STD: STD_FAIR if groups > 1 else NO_STD, IN_1X1: groups == 1}
    return BackboneFile("Detectron2 (MSRA, FAIR)", _for_rgb(state), rules)


def _of_keras(tensors: Mapping[str, Tensor]) -> BackboneFile:
    """Trained on BGR; its convolutions have biases, and its first pooling reads on from the first pixel."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        *groups, last = name.split("/")
        layer = next((group for group in reversed(groups) if matterport.LAYER.fullmatch(group)), None)
        if layer is not None and (found := KERAS.search(last)) is not None:
            layers.setdefault(layer, {})[KERAS_1.get(found[1], found[1])] = value.to(torch.float32)
    depth = 101 if "res4g_branch2a" in layers else 50
    state = matterport.backbone_state(layers, matterport.backbone_names(depth))
    state = {name.removeprefix("backbone."): value for name, value in state.items()}
    rules = {MEAN: MEAN_KERAS, STD: NO_STD, IN_1X1: True, EPS: matterport.EPS, POOL: "after"}
    return BackboneFile("Keras", _for_rgb(state), rules)


def _for_rgb(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {STEM: other_colours(state[STEM])} if STEM in state else state


def _groups(weight: Tensor) -> int:
    """Groups of the first block's 3x3 convolution, which has as many channels before as behind."""
    return len(weight) // weight.shape[1]


def with_rules_of(config: Config, file: BackboneFile) -> Config:
    """The config with the rules of a backbone wherever its own are the defaults."""
    if not file.rules or not isinstance(config.model.backbone, ResNetConfig):
        return config
    values, usual = config_to_dict(config), config_to_dict(Config())
    for name, value in file.rules.items():
        if _get(values, name) == _get(usual, name):
            *path, last = name.split(".")
            place = values
            for part in path:
                place = place[part]
            place[last] = value
    return config_from_dict(values)


def check_rules(config: Config, file: BackboneFile) -> None:
    """Raises ConfigError where a network would use a backbone otherwise than it was trained."""
    values = config_to_dict(config)
    for name, value in file.rules.items():
        found = _get(values, name)
        if found != value:
            raise ConfigError(
                f"{name} is {found}, and these weights of {file.kind} were trained with {value}: set it so"
            )
    backbone = config.model.backbone
    if file.folded and isinstance(backbone, ResNetConfig) and backbone.norm != "frozen_batch_norm":
        raise ConfigError(
            f"model.backbone.norm is {backbone.norm}, and these weights of {file.kind} hold no statistics of batch "
            "norm: set it to frozen_batch_norm"
        )


def _get(values: Mapping[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        found = found[part] if isinstance(found, Mapping) and part in found else None
    return found
