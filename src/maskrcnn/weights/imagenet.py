"""Names of torchvision's ResNets and ours, files of ImageNet weights, and backbones of timm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.files.containers import WEIGHTS_SUFFIXES
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.named import downloaded, local_file

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


def imagenet_file(source: Path | str) -> Path:
    """A file, or that of an address or a name in torchvision's list of weights: torchvision's copy, or a download.

    Args:
        source: a path, an address, or a name such as `resnet50` (its default weights) or
            `ResNet50_Weights.IMAGENET1K_V1`.

    Raises:
        WeightsError: no such name, or the network cannot be reached.
    """
    return local_file(source) if is_file(source) else _named(str(source))


def is_file(source: Path | str) -> bool:
    """Whether a source is meant as a path or an address, and not as a name in torchvision's list."""
    path = Path(source)
    return path.exists() or path.suffix in WEIGHTS_SUFFIXES or len(path.parts) > 1


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
