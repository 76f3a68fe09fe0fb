"""The same Mask R-CNN in both packages: torchvision's network with random weights that find many objects, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn.config import Config
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.frameworks.torchvision.layout import our_state
from maskrcnn.weights.frameworks.torchvision.settings import torchvision_config

TORCHVISION_CLASSES = 91  # of torchvision's COCO models, with the background
EVERYTHING = 10**6  # a sample size larger than any number of anchors or RoIs
_OURS, _THEIRS = "ours.pt", "theirs.pt"

# The standard deviation that `enliven` gives to the outputs of these layers of `maskrcnn_resnet50_fpn`.
SPREAD = {
    "rpn.head.conv.0.0": 1.0,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "roi_heads.box_head.fc6": 1.0,
    "roi_heads.box_head.fc7": 1.0,
    "roi_heads.box_predictor.cls_score": 3.0,
    "roi_heads.box_predictor.bbox_pred": 0.7,
    **{f"roi_heads.mask_head.{i}.0": 1.0 for i in range(4)},
    "roi_heads.mask_predictor.conv5_mask": 1.0,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
}


@dataclass(frozen=True)
class Pair:
    """Both networks with the same weights, in evaluation mode.

    Attributes:
        config: the settings that both follow.
    """

    theirs: nn.Module
    ours: MaskRCNN
    config: Config

    def to(self, device: torch.device) -> Pair:
        return Pair(self.theirs.to(device), self.ours.to(device), self.config)

    def store(self, folder: Path) -> None:
        """Writes the weights of both, for processes that measure one side alone."""
        torch.save(self.ours.state_dict(), folder / _OURS)
        torch.save(self.theirs.state_dict(), folder / _THEIRS)


def v1_config(short_side: int, long_side: int, detections: int = 100, score_threshold: float = 0.05) -> Config:
    """The config of torchvision's `maskrcnn_resnet50_fpn`, for images of this size."""
    config = torchvision_config(1, TORCHVISION_CLASSES - 1)
    detect = replace(config.model.detect, max_detections=detections, score_threshold=score_threshold)
    return replace(
        config,
        model=replace(config.model, detect=detect),
        image=replace(config.image, short_side=short_side, long_side=long_side),
    )


def without_sampling(config: Config, proposals: int = 50) -> Config:
    """The config with every anchor and RoI in the losses, so that nothing is sampled at random.

    Args:
        proposals: per image in training; few, because all of them are used.
    """
    model = config.model
    mask_head = None if model.mask_head is None else replace(model.mask_head, samples=EVERYTHING)
    keypoint_head = None if model.keypoint_head is None else replace(model.keypoint_head, samples=EVERYTHING)
    model = replace(
        model,
        rpn=replace(model.rpn, samples=EVERYTHING, positive_fraction=1.0, pre_nms_train=500, post_nms_train=proposals),
        box_head=replace(model.box_head, samples=EVERYTHING, positive_fraction=1.0),
        mask_head=mask_head,
        keypoint_head=keypoint_head,
    )
    return replace(config, model=model)


def settings_of_theirs(config: Config) -> dict[str, Any]:
    """The arguments that make torchvision's constructors follow `config`."""
    rpn, box, detect = config.model.rpn, config.model.box_head, config.model.detect
    return {
        "num_classes": config.model.num_classes + 1,
        "min_size": config.image.short_side,
        "max_size": config.image.long_side,
        "rpn_batch_size_per_image": rpn.samples,
        "rpn_positive_fraction": rpn.positive_fraction,
        "rpn_pre_nms_top_n_train": rpn.pre_nms_train,
        "rpn_pre_nms_top_n_test": rpn.pre_nms_test,
        "rpn_post_nms_top_n_train": rpn.post_nms_train,
        "rpn_post_nms_top_n_test": rpn.post_nms_test,
        "box_batch_size_per_image": box.samples,
        "box_positive_fraction": box.positive_fraction,
        "box_detections_per_img": detect.max_detections,
        "box_score_thresh": detect.score_threshold,
    }


def build_theirs(config: Config) -> nn.Module:
    """torchvision's Mask R-CNN with ResNet-50 and FPN, as `maskrcnn_resnet50_fpn` builds it for pretrained weights:
    batch norms, the stem and the first stage are frozen."""
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    return TorchvisionMaskRCNN(backbone, **settings_of_theirs(config)).eval()


def make_pair(config: Config, images: Sequence[Tensor], seed: int = 0) -> Pair:
    """Both networks with random weights that find many objects in `images`, each (3, H, W) float32 in 0..1."""
    torch.manual_seed(seed)
    theirs = build_theirs(config)
    enliven(theirs, images, SPREAD)
    return Pair(theirs, copy_weights(theirs, config), config)


def copy_weights(model: nn.Module, config: Config) -> MaskRCNN:
    """Our network in evaluation mode, with the weights of torchvision's."""
    network = build_model(config)
    network.load_state_dict(our_state(model.state_dict(), config))
    return network.eval()


def stored_ours(folder: Path, config: Config, device: torch.device) -> MaskRCNN:
    """Our network of a stored pair, in evaluation mode."""
    network = build_model(config)
    network.load_state_dict(torch.load(folder / _OURS))
    return network.eval().to(device)


def stored_theirs(folder: Path, config: Config, device: torch.device) -> nn.Module:
    """torchvision's network of a stored pair, in evaluation mode."""
    model = build_theirs(config)
    model.load_state_dict(torch.load(folder / _THEIRS))
    return model.to(device)


def enliven(model: nn.Module, images: Sequence[Tensor], spread: Mapping[str, float]) -> None:
    """Changes the random weights of torchvision's network so that it finds many different objects.

    Plain random weights find nothing, or the same everywhere. Here, batch norms get the statistics of their input for
    `images` (times a random factor), and the layers in `spread` get outputs of a fixed standard deviation.

    Args:
        images: (3, H, W) float32 in 0..1.
        spread: standard deviation of the output of the named layers.
    """
    hooks = []
    for name, module in model.named_modules():
        if name in spread:
            hooks.append(module.register_forward_hook(_Spread(spread[name])))
        elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            hooks.append(module.register_forward_pre_hook(_statistics))
            # Residual branches get small weights, because large random ones would amplify rounding errors.
            module.weight.data.uniform_(*((0.1, 0.3) if name.endswith(".bn3") else (0.6, 1.2)))
            module.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        model(list(images))
    for hook in hooks:
        hook.remove()


def _statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Sets the running statistics of a batch norm roughly to those of its input."""
    assert isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d)
    x = inputs[0]
    norm.running_mean = x.mean((0, 2, 3)) + 0.1 * torch.randn(x.shape[1])
    norm.running_var = x.var((0, 2, 3)) * (0.7 + 0.6 * torch.rand(x.shape[1])) + 1e-3


class _Spread:
    """A forward hook that scales a layer once, to a given standard deviation of its output and a mean near 0."""

    def __init__(self, std: float) -> None:
        self.std = std
        self.done = False

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if self.done:
            return None
        self.done = True
        assert isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        channels = output.movedim(1, -1).flatten(0, -2)
        mean = channels.mean(0)
        scale = self.std / (channels - mean).std()
        shift = 0.3 * self.std * torch.randn(len(mean)) - mean * scale
        layer.weight.data *= scale
        assert layer.bias is not None
        layer.bias.data = layer.bias.data * scale + shift
        return output * scale + shift.view(1, -1, *[1] * (output.ndim - 2))
