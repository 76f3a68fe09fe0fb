"""What the files of a data set do not say, so that a person may say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FormatName = Literal[
    "coco",
    "rle-csv",
    "label-images",
    "object-masks",
    "labelme",
    "yolo",
    "voc",
    "cityscapes",
    "kitti",
    "mots",
    "mapillary-vistas",
    "ade20k",
    "ade20k-challenge",
    "coco-panoptic",
    "hubmap",
    "cvat",
    "label-studio",
    "via",
    "supervisely",
    "darwin",
    "geojson",
    "imagej",
    "napari",
    "labelbox",
    "vott",
    "datumaro",
    "open-images",
    "hasty",
]
WritableName = Literal[
    "coco",
    "rle-csv",
    "yolo",
    "labelme",
    "cvat",
    "label-studio",
    "geojson",
    "label-images",
    "object-masks",
]


@dataclass(frozen=True)
class Hints:
    """How to read a data set. Everything has a default that suits most files; docs/formats.md explains each."""

    format: FormatName | None = None
    """Format of the data set; default: the one that its files show."""
    order: Literal["down", "right"] | None = None
    """Run-length CSV: whether pixels run down the columns or right along the rows; default: as the runs show."""
    missing: Literal["leave-out", "empty"] | None = None
    """What an image without annotations of its own is: left out, or empty. Default: as usual in the format."""
    class_attribute: str | None = None
    """VIA: the region attribute that names the class; default: the one that looks like it."""
    columns: tuple[str, ...] = ()
    """Run-length CSV, which this implies: names of columns, such as `image=file mask=rle class=kind height=h width=w`.
    """
    parts: bool = False
    """Make every connected part of a mask an object, for files with one mask of all objects of a class."""
    split: str | None = None
    """Read only this part of a data set that names parts, such as train or val."""


NO_HINTS = Hints()
