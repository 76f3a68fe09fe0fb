"""Published models by name: the table `named.csv`, and the file that a source of weights stands for.

Figures are AP on COCO val2017 as published: by torchvision (`meta` of its weights), in Detectron2's MODEL_ZOO.md and in
the metafiles of MMDetection's configs.
"""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from maskrcnn.errors import WeightsError
from maskrcnn.files.containers import WEIGHTS_SUFFIXES
from maskrcnn.files.fetch import fetch


@dataclass(frozen=True)
class NamedWeights:
    """One published model. AP in percent, None where the model has no such output or none was published; `megabytes`
    of the file, None where it is not known.

    The name is `framework/model`, the model as its framework calls it: torchvision's function, the path of Detectron2's
    config, the file of MMDetection's.
    """

    name: str
    box_ap: float | None
    mask_ap: float | None
    keypoint_ap: float | None
    megabytes: float | None
    licence: str
    url: str

    @property
    def evaluate_line(self) -> str:
        """The command that would confirm its AP, with COCO as it is published in a folder `coco`."""
        kind = "instances" if self.keypoint_ap is None else "person_keypoints"
        return f"maskrcnn evaluate --model {self.name} --data coco/annotations/{kind}_val2017.json"


@cache
def named_weights() -> dict[str, NamedWeights]:
    """All of the table, by name."""
    with files("maskrcnn.weights").joinpath("named.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["name"]: NamedWeights(
            name=row["name"],
            box_ap=_number(row["box_ap"]),
            mask_ap=_number(row["mask_ap"]),
            keypoint_ap=_number(row["keypoint_ap"]),
            megabytes=_number(row["megabytes"]),
            licence=row["licence"],
            url=row["url"],
        )
        for row in rows
    }


def _number(text: str) -> float | None:
    return float(text) if text else None


def is_named(source: Path | str) -> bool:
    """Whether it is an address or a name of the table."""
    return str(source).startswith(("http://", "https://")) or str(source) in named_weights()


def local_file(source: Path | str) -> Path:
    """The file that a path, an address or a name of the table stands for, downloaded if need be.

    Raises:
        WeightsError: a name that is neither in the table nor a file, or the download failed.
    """
    path = Path(source)
    if path.exists():
        return path
    if is_named(source):
        entry = named_weights().get(str(source))
        return downloaded(str(source) if entry is None else entry.url)
    frameworks = {name.split("/")[0] for name in named_weights()}
    if path.suffix in WEIGHTS_SUFFIXES or (len(path.parts) > 1 and path.parts[0] not in frameworks):
        return path  # whoever opens it says that it is missing
    names = {name.rpartition("/")[2]: name for name in named_weights()}  # the last part is what people remember
    near = [names[last] for last in difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)]
    hint = f"nearest: {', '.join(near)}; " if near else ""
    raise WeightsError(f"{source}: neither a file nor a named model; {hint}`maskrcnn weights list` lists all names")


def initial_file(source: Path | str) -> Path:
    """The file that training begins from: as of `local_file`, or ImageNet weights by their name in torchvision.

    Args:
        source: a path, an address, a name of the table, or a name of torchvision such as `resnet50` (its default
            weights) or `ResNet50_Weights.IMAGENET1K_V1`.

    Raises:
        WeightsError: no such name, or the network cannot be reached.
    """
    path = Path(source)
    if path.exists() or path.suffix in WEIGHTS_SUFFIXES or len(path.parts) > 1:
        return local_file(source)
    from torchvision.models import get_model_weights, get_weight

    name = str(source)
    try:
        weights = get_weight(name) if "." in name else get_model_weights(name).DEFAULT
    except (ValueError, AttributeError, KeyError):
        raise WeightsError(
            f"{name!r} is neither a file nor the name of torchvision weights; "
            "examples: resnet50, ResNet50_Weights.IMAGENET1K_V1, weights/resnet50.pth"
        ) from None
    return downloaded(weights.url)


def downloaded(url: str) -> Path:
    """The file behind an address: torch's own copy of it, where the name holds the hash that tells it, or ours."""
    import torch

    own = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(url).path).name
    return own if own.is_file() and re.search(r"-[0-9a-f]{8}\.", own.name) else fetch(url)
