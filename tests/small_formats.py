"""A small data set of every format that is read, with a file that a test may break."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.data.convert import convert
from maskrcnn.data.formats import read_dataset
from small_annotations import FILES, write_annotations
from small_pictures import CODED, write_coded
from small_scene import save_images, save_picture, scene

CHANGED = {"coco": "annotations.json", "rle-csv": "annotations.csv", "yolo": "labels/one.txt", "labelme": "one.json"}


def write_format(folder: Path, key: str) -> tuple[Path, Path]:
    """Writes a data set of a format; returns the file that is changed, and the folder that is read."""
    if key in CODED:
        return write_coded(folder, key), folder
    if key in FILES:
        return write_annotations(folder, key), folder
    if key == "voc":
        return _scene_as_voc(folder), folder
    for name, things in scene().items():
        save_images(folder / "in" / name / "images", (name,))
        for number, thing in enumerate(things):
            save_picture(folder / "in" / name / "masks" / f"{number}.png", thing.mask)
    if key == "object-masks":
        return folder / "in" / "one" / "masks" / "0.png", folder / "in"
    convert(read_dataset(folder / "in"), folder / "out", key)
    return folder / "out" / CHANGED.get(key, "masks/one.png"), folder / "out"


def _scene_as_voc(folder: Path) -> Path:
    save_images(folder / "images", ("one",))
    save_picture(folder / "SegmentationObject" / "one.png", scene()["one"][0].mask.astype(np.uint8))
    (folder / "Annotations").mkdir()
    entry = "<object><name>a</name><difficult>0</difficult></object>"
    (folder / "Annotations" / "one.xml").write_text(f"<annotation>{entry}</annotation>")
    return folder / "Annotations" / "one.xml"
