"""Backbone weights in torchvision's layout, from a file or by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from maskrcnn.errors import WeightsError
from maskrcnn.models.timm_backbone import TimmBackbone
from maskrcnn.weights.model_file import fill, read_safetensors, read_torch

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


def load_backbone(backbone: nn.Module, source: Path | str) -> str:
    """Fills a backbone from a .pth or .safetensors file, or from torchvision's weight list by name.

    Args:
        backbone: a ResNet, or its stem and stages under their names.
        source: a path, or a name such as `resnet50` (its default weights) or `ResNet50_Weights.IMAGENET1K_V1`.

    Returns:
        Where the weights came from, in words.

    Raises:
        WeightsError: no such file or name, the network cannot be reached, or the file does not fit.
    """
    path = Path(source)
    if path.suffix == ".safetensors":
        state: Mapping[Any, Any] = read_safetensors(path)[0]
    elif path.exists() or path.suffix in (".pth", ".pt"):
        state = read_torch(path)
    else:
        state = _named(str(source))
    expected = backbone.state_dict()
    renamed = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{source}: expected a dictionary of tensors by name, as torchvision's resnet state_dict(), "
                f"found {name!r}: {type(value).__name__}"
            )
        if not DROPPED.search(name):
            renamed[torchvision_to_ours(name)] = value.to(torch.float32)
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
        path = Path(source)
        state = read_safetensors(path)[0] if path.suffix == ".safetensors" else read_torch(path)
        whole: Any = timm.create_model(backbone.name)
        classifier = f"{whole.default_cfg['classifier']}."
        missing = [name for name in whole.state_dict() if name not in state and not name.startswith(classifier)]
        if missing:  # which timm itself would leave at random
            raise WeightsError(
                f"{source}: {missing[0]} and {len(missing) - 1} more tensors of timm's {backbone.name} are missing; "
                f"give a file of its whole model, or `timm` to download it"
            )
        overlay = {"file": str(path)}
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


def _named(name: str) -> Mapping[str, Any]:
    from torchvision.models import get_model_weights, get_weight

    try:
        weights = get_weight(name) if "." in name else get_model_weights(name).DEFAULT
    except (ValueError, AttributeError, KeyError):
        raise WeightsError(
            f"{name!r} is neither a file nor the name of torchvision weights; "
            "examples: resnet50, ResNet50_Weights.IMAGENET1K_V1, weights/resnet50.pth"
        ) from None
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / PurePosixPath(urlparse(weights.url).path).name
    if not file.exists():
        hash_prefix = re.search(r"-([a-f0-9]+)\.", file.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), hash_prefix[1] if hash_prefix else None)
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: what came has another hash
            raise WeightsError(
                f"cannot download {name} from {weights.url} ({error}); download that file on a machine with a "
                "network and give its path instead"
            ) from None
    return read_torch(file)
