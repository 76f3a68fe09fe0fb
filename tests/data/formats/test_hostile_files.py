"""Files of every format, cut off and changed at random: each is read, or refused in one line."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.convert import convert
from maskrcnn.data.formats import FORMATS, read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_annotations import FILES, write_annotations
from small_pictures import CODED, write_coded
from small_scene import SIZE, save_images, save_picture, scene

MUTATIONS = 60
VALUES = ("null", "true", "-1", "1e999", "NaN", '""', "{}", "[]", "9" * 20, "0", '"a"', "[[1, 2]]", "4294967295", "0.5")
TOKEN = re.compile(r'-?\d+(\.\d+)?|"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}')


def scene_as_voc(folder: Path) -> Path:
    save_images(folder / "images", ("one",))
    save_picture(folder / "SegmentationObject" / "one.png", scene()["one"][0].mask.astype(np.uint8))
    (folder / "Annotations").mkdir()
    entry = "<object><name>a</name><difficult>0</difficult></object>"
    (folder / "Annotations" / "one.xml").write_text(f"<annotation>{entry}</annotation>")
    return folder / "Annotations" / "one.xml"


def write(folder: Path, key: str) -> Path:
    """A data set of a format; returns the file that is changed."""
    if key in CODED:
        return write_coded(folder, key)
    if key in FILES:
        return write_annotations(folder, key)
    if key == "voc":
        return scene_as_voc(folder)
    for name, things in scene().items():
        save_images(folder / "in" / name / "images", (name,))
        for number, thing in enumerate(things):
            save_picture(folder / "in" / name / "masks" / f"{number}.png", thing.mask)
    if key == "object-masks":
        return folder / "in" / "one" / "masks" / "0.png"
    convert(read_dataset(folder / "in"), folder / "out", key)
    files = {"coco": "annotations.json", "rle-csv": "annotations.csv", "yolo": "labels/one.txt", "labelme": "one.json"}
    return folder / "out" / files.get(key, "masks/one.png")


def changed(content: bytes, dice: random.Random) -> bytes:
    """The content cut off, with a byte or a stretch changed, or with another value in the place of one."""
    at, end = dice.randrange(len(content)), dice.randrange(1, 60)
    kind = dice.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + content[at + end :]
    text = content.decode("latin-1")
    places = list(TOKEN.finditer(text))
    if not places:
        return content[: at + end] + content[at:]
    place = dice.choice(places)
    return (text[: place.start()] + dice.choice(VALUES) + text[place.end() :]).encode("latin-1")


@pytest.mark.parametrize("key", [format.key for format in FORMATS])
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, key)
    content, folder = file.read_bytes(), tmp_path / "out" if (tmp_path / "out").exists() else tmp_path
    hints = Hints(format=key)  # type: ignore[arg-type]
    assert len(read_dataset(folder, hints=hints))
    refused = []
    for seed in range(MUTATIONS):
        file.write_bytes(changed(content, random.Random(f"{key} {seed}")))
        try:
            dataset = read_dataset(folder, hints=hints)
        except DataError as error:
            refused.append(error.args[0])
            continue
        for index in range(len(dataset)):
            for mask in dataset.annotations(index).masks():
                assert mask is None or mask.size in (SIZE, SIZE[::-1]), seed
    assert [message for message in refused if "\n" in message] == []
