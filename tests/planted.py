"""A sound data set of a few images, and faults to plant in copies of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.doctor.objects import Objects, measured
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.masks import RLE

IMAGES, SIDE = 6, (96, 128)  # height, width
PLAIN_SIZE = (40, 50)  # of images without a file
Content = dict[str, Any]
Plant = Callable[[Content, Path], object]


def polygon(x: float, y: float, radius: float = 12, corners: int = 8) -> list[float]:
    """A regular polygon around a point, with one longer spoke, so that its box has no symmetry."""
    angles = np.arange(corners) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) == 0, 1.3 * radius, radius)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1).ravel().tolist()


def entry(number: int, image: int, category: int, part: list[float]) -> dict[str, Any]:
    """A COCO annotation whose box and area are those of its mask."""
    mask = drawn(part)
    x1, y1, x2, y2 = mask.box.tolist()
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [part],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": mask.area,
        "iscrowd": 0,
    }


def drawn(part: list[float]) -> RLE:
    return RLE(SIDE, polygons_to_rle([np.reshape(part, (-1, 2))], SIDE))


def sound(seed: int = 0) -> tuple[Content, list[Image.Image]]:
    """COCO content of two classes, with two objects on each image, and the images."""
    rng = np.random.default_rng(seed)
    content: Content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 1, "name": "leaf"}, {"id": 2, "name": "stone"}]
    pictures = []
    for number in range(1, IMAGES + 1):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(SIDE[::-1], Image.Resampling.BICUBIC)
        for category, left in ((1, 30), (2, 90)):
            x, y = left + rng.uniform(-8, 8), 48 + rng.uniform(-20, 20)
            part = polygon(x, y, rng.uniform(9, 14))
            ImageDraw.Draw(picture).polygon([tuple(p) for p in np.reshape(part, (-1, 2)).tolist()], fill=(250, 20, 20))
            content["annotations"].append(entry(len(content["annotations"]) + 1, number, category, part))
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": SIDE[0], "width": SIDE[1]})
        pictures.append(picture)
    return content, pictures


def written(folder: Path, content: Content, pictures: list[Image.Image]) -> Path:
    """Writes the images, and the JSON with the content beside them."""
    (folder / "images").mkdir(parents=True)
    for number, picture in enumerate(pictures, start=1):
        picture.save(folder / "images" / f"{number}.png", compress_level=1)
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return path


def setting(key: str, value: Any, annotation: int = 0) -> Plant:
    """Sets a field of an annotation."""
    return lambda content, images: content["annotations"][annotation].__setitem__(key, value)


def renaming(name: str) -> Plant:
    """Gives the second class another name."""
    return lambda content, images: content["categories"][1].__setitem__("name", name)


def adding(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Plant:
    """Adds an annotation made from a copy of the first one."""
    return lambda content, images: content["annotations"].append(
        {**copy.deepcopy(content["annotations"][0]), **change(content["annotations"][0]), "id": 900}
    )


def polygons(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Changes the (n, 2) points of the first polygon; its box and area become those of the new mask if it has one."""

    def plant(content: Content, images: Path) -> None:
        part = change(np.reshape(content["annotations"][0]["segmentation"][0], (-1, 2))).ravel().tolist()
        content["annotations"][0] = entry(1, 1, 1, part)
        if not drawn(part).area:
            del content["annotations"][0]["bbox"], content["annotations"][0]["area"]
            content["annotations"][0]["bbox"] = [2, 2, 20, 20]

    return plant


def image_entry(**fields: Any) -> Plant:
    """Sets fields of the first image."""
    return lambda content, images: content["images"][0].update(fields)


def file_of(change: Callable[[Image.Image, Path], object], name: str = "1.png") -> Plant:
    """Writes the file of the first image anew, from its picture."""

    def plant(content: Content, images: Path) -> None:
        with Image.open(images / "1.png") as picture:
            picture.load()
        content["images"][0]["file_name"] = name
        change(picture, images / name)

    return plant


def another_image(change: Callable[[Image.Image, Path], object], name: str) -> Plant:
    """Adds an image made from the first one, with its annotations."""

    def plant(content: Content, images: Path) -> None:
        with Image.open(images / "1.png") as picture:
            change(picture, images / name)
        with Image.open(images / name) as saved:
            factor = saved.width / SIDE[1]
            content["images"].append({"id": 99, "file_name": name, "height": saved.height, "width": saved.width})
        for own in content["annotations"][:2]:
            part = [factor * value for value in own["segmentation"][0]]
            number = 900 + len(content["annotations"])
            given = {key: own[key] for key in ("category_id", "iscrowd")}
            content["annotations"].append({"id": number, "image_id": 99, "segmentation": [part], **given})

    return plant


def jpeg(quality: int, scale: float = 1.0) -> Callable[[Image.Image, Path], object]:
    """Saves a picture as JPEG, smaller or larger."""

    def save(picture: Image.Image, path: Path) -> None:
        size = (round(scale * picture.width), round(scale * picture.height))
        picture.resize(size, Image.Resampling.LANCZOS).save(path, format="JPEG", quality=quality)

    return save


def turned(orientation: int, size: tuple[int, int] | None = None) -> Callable[[Image.Image, Path], object]:
    """Saves a picture as JPEG with an EXIF orientation."""

    def save(picture: Image.Image, path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        (picture.resize(size) if size else picture).save(path, format="JPEG", exif=exif)

    return save


def objects_of(*annotations: dict[str, Any], images: int = 1, size: tuple[int, int] = PLAIN_SIZE) -> Objects:
    """The measured annotations of a data set of one class, whose images have no files."""
    builder = DatasetBuilder(Path("some.file"))
    builder.add_category(1, "cell")
    for number in range(images):
        builder.add_image(number, Path(f"{number}.png"), *size, {})
    for fields in annotations:
        builder.add_annotation(RawAnnotation(**{"image_id": 0, "category_id": 1, **fields}))
    dataset = builder.build()
    return measured(dataset, np.repeat(np.arange(images), dataset.records.counts), dataset.records.rows)


def faulty(folder: Path) -> Path:
    """A data set with a broken image, a wrong box, an object twice and a class without objects."""
    content, pictures = sound()
    content["annotations"][2]["bbox"] = [100, 70, 20, 20]
    content["annotations"].append({**content["annotations"][0], "id": 900})
    content["categories"].append({"id": 3, "name": "<twig>"})
    path = written(folder, content, pictures)
    (folder / "images" / "6.png").write_bytes(b"no image")
    return path
