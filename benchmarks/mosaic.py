"""One large image of known images: what a model finds in tiles, beside what it finds in each image alone.

    python benchmarks/mosaic.py DATA OUT --model nuclei --side 20000 --image-side 520 --tiles 520 --overlap 96

DATA is an annotation file. Its images with a short side of `--image-side` pixels fill OUT/mosaic.tif at their own
scale, each in a block of its own, many times, plain and mirrored. Images of like brightness lie beside each other, as
in a slide. Between the images lie `--gap` pixels of their median colour, so that an object which the edge of an image
cuts does not touch the next one. OUT/mosaic.json has the objects in their places, and OUT/alone.json what the model
finds in each image alone, moved to the same places. Both are judged by one command each, against the same objects.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio

import maskrcnn
from maskrcnn.data.formats import read_dataset
from maskrcnn.ops.rle import decode_many, encode_many
from maskrcnn.predict import to_coco_results
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances

FLIPS = ((False, False), (True, False), (False, True), (True, True))  # left to right, top to bottom
TIFF: dict[str, Any] = {
    "driver": "GTiff",
    "count": 3,
    "dtype": "uint8",
    "photometric": "rgb",
    "compress": "zstd",
    "zlevel": 1,
}


class Place(NamedTuple):
    """Where a copy of an image lies: x and y of its first pixel, and the number of its `FLIPS`."""

    x: int
    y: int
    flip: int


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    found = make(options)
    if options.only_make:
        return
    judge = ["evaluate", "--data", options.out / "mosaic.json", "--matching"]
    command(*judge, "--results", options.out / "alone.json", "--max-detections", max(1, found))
    size = ["--tiles", options.tiles, "--overlap", options.overlap]
    command(*judge, "--model", options.model, *size, "--results-out", options.out / "tiles.json")


def make(options: argparse.Namespace) -> int:
    """Writes the mosaic, its objects, and what the model finds in each image alone. Returns how many that are."""
    dataset = read_dataset(options.data)
    numbers = chosen(dataset, options.image_side, options.blocks)
    tiff, size_hw = options.out / "mosaic.tif", (options.side, options.side)
    model = maskrcnn.load(options.model)
    truth: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    with rasterio.open(tiff, "w", width=options.side, height=options.side, **TIFF) as file:
        for number, block in zip(numbers, blocks(options.side, options.blocks), strict=True):
            image = dataset.read(number, print, ())
            places = list(places_in(block, image.shape[:2], options.gap))
            left, top, width, height = block
            pixels = np.empty((height, width, 3), np.uint8)
            pixels[:] = np.median(image.reshape(-1, 3), axis=0)
            for x, y, flip in places:
                pixels[y - top :, x - left :][: image.shape[0], : image.shape[1]] = flipped(image, flip)
            file.write(pixels.transpose(2, 0, 1), window=((top, top + height), (left, left + width)))
            truth += moved([of_flip(dataset.instances(number), flip) for flip in range(len(FLIPS))], places, size_hw)
            found = model.predict([flipped(image, flip) for flip in range(len(FLIPS))])
            alone += moved(found, places, size_hw)
    for i, entry in enumerate(truth, start=1):
        entry |= {"id": i, "iscrowd": 0, "area": entry.pop("pixels")}
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    images = [{"id": 1, "file_name": tiff.name, "width": options.side, "height": options.side}]
    content = {"images": images, "annotations": truth, "categories": categories}
    (options.out / "mosaic.json").write_text(json.dumps(content))
    for entry in alone:
        del entry["pixels"]
    (options.out / "alone.json").write_text(json.dumps(alone))
    print(f"{tiff}: {options.side} x {options.side} pixels, {len(truth)} objects", flush=True)
    return len(alone)


def chosen(dataset: Dataset, side: int, across: int) -> list[int]:
    """The numbers of the images for all blocks, row by row. Rows are run through in turns, so that neighbours in the
    order of brightness are neighbours in the mosaic."""
    fitting = [i for i, record in enumerate(dataset.records) if min(record.height, record.width) == side]
    if not fitting:
        raise SystemExit(f"{dataset.path}: expected images with a short side of {side} pixels, found none")
    fitting.sort(key=lambda number: float(dataset.read(number, print, ()).mean()))
    spread = np.linspace(0, len(fitting) - 1, across**2).round().astype(int).reshape(across, across)
    spread[1::2] = spread[1::2, ::-1]
    return [fitting[place] for place in spread.ravel()]


def blocks(side: int, across: int) -> Iterator[tuple[int, int, int, int]]:
    """x, y, width and height of all blocks, row by row."""
    edges = np.linspace(0, side, across + 1).astype(int).tolist()
    for y, bottom in pairwise(edges):
        for x, right in pairwise(edges):
            yield x, y, right - x, bottom - y


def places_in(block: tuple[int, int, int, int], image_hw: tuple[int, ...], gap: int) -> Iterator[Place]:
    """The places of the copies of an image in its block."""
    left, top, width, height = block
    down, across = ((room - gap) // (length + gap) for room, length in zip((height, width), image_hw, strict=True))
    if not down * across:
        raise SystemExit(f"expected blocks for images of {image_hw}, found {height} x {width}: choose a larger --side")
    for row in range(down):
        for column in range(across):
            x, y = left + gap + column * (image_hw[1] + gap), top + gap + row * (image_hw[0] + gap)
            yield Place(x, y, (row + column) % len(FLIPS))


def flipped(image: np.ndarray, flip: int) -> np.ndarray:
    across, down = FLIPS[flip]
    return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if across else 1])


def of_flip(instances: Instances, flip: int) -> Instances:
    across, down = FLIPS[flip]
    instances = instances.flipped_horizontally() if across else instances
    return instances.flipped_vertically() if down else instances


def moved(of_flips: list[Instances], places: list[Place], size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """The objects of an image at all places of its copies, as COCO results with the number of their pixels.

    A mask elsewhere has other first and last runs only, as long as it does not touch the border.
    """
    first = places[0]
    for flip, instances in enumerate(of_flips):
        there = instances.shifted(first[:2], size_hw)
        assert there.masks is not None
        areas, entries = there.masks.areas().tolist(), to_coco_results(there, 1)
        runs, sizes, _ = decode_many([mask.counts for mask in there.masks])
        ends = np.cumsum(sizes)
        for place in (place for place in places if place.flip == flip):
            x, y = place.x - first.x, place.y - first.y
            own = runs.copy()
            own[ends - sizes] += np.where(sizes > 1, x * size_hw[0] + y, 0)
            own[ends - 1] -= np.where(sizes > 1, x * size_hw[0] + y, 0)
            for entry, area, counts in zip(entries, areas, encode_many(own, sizes), strict=True):
                left, top, *sides = entry["bbox"]
                mask = {"size": list(size_hw), "counts": counts.decode()}
                yield {**entry, "bbox": [left + x, top + y, *sides], "segmentation": mask, "pixels": area}


def command(*words: object) -> None:
    line = [sys.executable, "-m", "maskrcnn", *map(str, words)]
    print(*line[2:], flush=True)
    began = time.monotonic()
    _, status, used = os.wait4(subprocess.Popen(line).pid, 0)
    if status:
        raise SystemExit(f"the command failed with status {os.waitstatus_to_exitcode(status)}")
    minutes, gigabytes = (time.monotonic() - began) / 60, used.ru_maxrss * 1024 / 1e9
    print(
        f"{minutes:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} of a core, {gigabytes:.2f} GB", flush=True
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One large image of known images, in tiles and alone.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--side", type=int, default=20000, help="pixels of the mosaic")
    parser.add_argument("--image-side", type=int, default=520, help="short side of the images to take")
    parser.add_argument("--blocks", type=int, default=4, help="in each row and column")
    parser.add_argument("--gap", type=int, default=16, help="pixels between images")
    parser.add_argument("--tiles", type=int, default=520)
    parser.add_argument("--overlap", type=int, default=96)
    parser.add_argument("--only-make", action="store_true", help="judge nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
