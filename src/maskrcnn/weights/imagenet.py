"""Backbone weights in torchvision's layout, from a file or by name."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch

from maskrcnn.errors import WeightsError
from maskrcnn.models.resnet import ResNet
from maskrcnn.weights.containers import SUFFIXES
from maskrcnn.weights.download import fetch
from maskrcnn.weights.model_file import fill
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
# The classifier and the training counters of batch norm have no place in a backbone.
DROPPED = re.compile(r"^fc\.|\.num_batches_tracked$")


def load_backbone(backbone: ResNet, source: Path | str) -> str:
    """Fills a backbone from a file of any kind that `read_checkpoint` opens, or from torchvision's weight list by name.

    Args:
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


def torchvision_to_ours(name: str) -> str:
    """The name of a torchvision ResNet parameter in our backbone."""
    for pattern, replacement in RENAMES:
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
    own = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(weights.url).path).name
    return own if own.is_file() else fetch(weights.url)
