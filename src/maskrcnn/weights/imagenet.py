"""Backbone weights in torchvision's layout, from a file or by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskrcnn.errors import WeightsError
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.containers import SUFFIXES
from maskrcnn.weights.model_file import fill
from maskrcnn.weights.named import downloaded
from maskrcnn.weights.read import read_checkpoint

# torchvision's name -> ours, applied in order
RENAMES = (
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"\.conv(\d)\.weight$", r".conv\1.conv.weight"),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
# The way back, applied in order
RENAMES_BACK = (
    (r"^stem\.conv\.", "conv1."),
    (r"^stem\.norm\.", "bn1."),
    *((rf"^res{stage}\.", f"layer{stage - 1}.") for stage in range(2, 6)),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
)
# The classifier and the training counters of batch norm have no place in a backbone.
DROPPED = re.compile(r"^fc\.|\.num_batches_tracked$")


def load_backbone(backbone: nn.Module, source: Path | str) -> str:
    """Fills a backbone from a file of any kind that `read_checkpoint` opens, or from torchvision's weight list by name.

    Args:
        backbone: a ResNet, or its stem and stages under their names.
        source: a path, or a name such as `resnet50` (its default weights) or `ResNet50_Weights.IMAGENET1K_V1`.

    Returns:
        Where the weights came from, in words.

    Raises:
        WeightsError: no such file or name, the network cannot be reached, or the file does not fit.
    """
    path = Path(source)
    is_file = path.exists() or path.suffix in SUFFIXES or len(path.parts) > 1
    checkpoint = read_checkpoint(path if is_file else _named(str(source)))
    expected = backbone.state_dict()
    renamed = {
        torchvision_to_ours(name): value.to(torch.float32)
        for name, value in checkpoint.tensors.items()
        if not DROPPED.search(name)
    }
    for name in expected:
        if name.endswith(".num_batches_tracked"):
            renamed[name] = expected[name]
    fill(backbone, renamed, str(source))
    return f"backbone from {path.name}"


def load_timm(backbone: TimmBackbone, source: Path | str) -> str:
    """Fills a timm backbone from a file of timm's whole model, or with `timm` from timm's own weight list.

    Returns:
        Where the weights came from, in words.

    Raises:
        WeightsError: no such file, the network cannot be reached, or the file does not fit.
    """
    import timm

    overlay = None
    if str(source) != "timm":
        state = read_checkpoint(source).tensors
        whole: Any = timm.create_model(backbone.name)
        classifier = f"{whole.default_cfg['classifier']}."
        missing = [name for name in whole.state_dict() if name not in state and not name.startswith(classifier)]
        if missing:  # which timm itself would leave at random
            raise WeightsError(
                f"{source}: {missing[0]} and {len(missing) - 1} more tensors of timm's {backbone.name} are missing; "
                "give a file of its whole model, or `timm` to download it"
            )
        overlay = {"state_dict": state}
    try:
        filled = timm.create_model(backbone.name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # timm raises whatever its parts do
        raise WeightsError(f"{source} does not fill timm's {backbone.name}: {error}") from None
    backbone.net.load_state_dict(filled.state_dict())
    return f"backbone from {Path(source).name}"


def torchvision_to_ours(name: str) -> str:
    """The name of a torchvision ResNet parameter in our backbone."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def ours_to_torchvision(name: str) -> str:
    """The name in torchvision of a parameter of our ResNet."""
    for pattern, replacement in RENAMES_BACK:
        name = re.sub(pattern, replacement, name)
    return name


def _named(name: str) -> Path:
    """The file of torchvision's weights of that name: torchvision's own copy of it, or a download."""
    from torchvision.models import get_model_weights, get_weight

    try:
        weights = get_weight(name) if "." in name else get_model_weights(name).DEFAULT
    except (ValueError, AttributeError, KeyError):
        raise WeightsError(
            f"{name!r} is neither a file nor the name of torchvision weights; "
            "examples: resnet50, ResNet50_Weights.IMAGENET1K_V1, weights/resnet50.pth"
        ) from None
    return downloaded(weights.url)
