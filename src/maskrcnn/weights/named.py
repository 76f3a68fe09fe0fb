"""Published models by name (`named.csv`), and the local file of a path, an address or any name.

The table holds the published AP on COCO val2017. Its sources are the `meta` of torchvision's weights, Detectron2's
MODEL_ZOO.md and the metafiles of MMDetection's configs.
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
from maskrcnn.weights.shipped import SHIPPED, shipped_file


@dataclass(frozen=True)
class NamedWeights:
    """One published model.

    Attributes:
        name: `framework/model`. The model is named after torchvision's function, the path of Detectron2's config or the
            file of MMDetection's config.
        box_ap, mask_ap, keypoint_ap: in percent. None if the model has no such output, or if none was published.
        megabytes: size of the file. None if it is not known.
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
        """The command that measures its AP. It expects the published files of COCO in a folder `coco`."""
        kind = "instances" if self.keypoint_ap is None else "person_keypoints"
        return f"maskrcnn evaluate --model {self.name} --data coco/annotations/{kind}_val2017.json"


@cache
def named_weights() -> dict[str, NamedWeights]:
    """The rows of the table, by name."""
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
    """Whether the source is an address or a name of the table."""
    return str(source).startswith(("http://", "https://")) or str(source) in named_weights()


def local_file(source: Path | str) -> Path:
    """The local file of a path, an address, a name of the table, or a model that the package ships.

    An address or a name of the table is downloaded if its file is not there yet.

    Raises:
        WeightsError: the name is not known and no file, or the download failed.
    """
    path = Path(source)
    if str(source) in SHIPPED and not path.is_file():  # a folder of this name rather holds data
        return shipped_file(str(source))
    if path.exists():
        return path
    if is_named(source):
        entry = named_weights().get(str(source))
        return downloaded(str(source) if entry is None else entry.url)
    if "://" in str(source):
        raise WeightsError(
            f"{source}: expected a file, or an address that begins with http:// or https://; download it yourself"
        )
    frameworks = {name.split("/")[0] for name in named_weights()}
    if path.suffix in WEIGHTS_SUFFIXES or (len(path.parts) > 1 and path.parts[0] not in frameworks):
        return path  # its reader reports that it is missing
    names = {name.rpartition("/")[2]: name for name in (*SHIPPED, *named_weights())}  # users remember the last part
    near = [names[last] for last in difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)]
    hint = f"nearest: {', '.join(near)}; " if near else ""
    raise WeightsError(
        f"{source}: neither a file, nor a folder of OpenVINO, nor a named model; {hint}`maskrcnn weights list` lists "
        "all names"
    )


def initial_file(source: Path | str) -> Path:
    """The local file of the weights that training begins from. It is downloaded if it is not there yet.

    Args:
        source: a source that `local_file` takes, or a name of torchvision's ImageNet weights such as `resnet50` (its
            default weights) or `ResNet50_Weights.IMAGENET1K_V1`.

    Raises:
        WeightsError: the name is not known, or the download failed.
    """
    path = Path(source)
    if path.exists() or path.suffix in WEIGHTS_SUFFIXES or len(path.parts) > 1 or str(source) in SHIPPED:
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
    """The downloaded file of an address.

    If the file's name holds a hash, a copy in torch's own cache is used.
    """
    import torch

    own = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(url).path).name
    return own if own.is_file() and re.search(r"-[0-9a-f]{8}\.", own.name) else fetch(url)
