"""Image files in, COCO results and pictures out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.files.atomic import atomic_write, check_file, check_folder
from maskrcnn.files.images import picture_name, read_image
from maskrcnn.files.media.windows import Pixels, open_pixels
from maskrcnn.predict.images import to_coco_results
from maskrcnn.predict.measure import Table, measured, write_table
from maskrcnn.predict.pipeline import Detector
from maskrcnn.predict.tiles import Tiled, stream_images
from maskrcnn.structures.instances import Instances

Keep = Callable[[int | str, Path, Instances], None]  # takes the id of an image, its file and its objects


class _Written(NamedTuple):
    """What is known of an image after it was predicted: its results, its rows of the table, and its objects."""

    results: list[dict[str, Any]]
    rows: list[list[Any]]
    found: Instances
    drawn: bool


MOST_DRAWN = 50_000_000  # pixels; drawing takes some ten bytes for each


@dataclass(frozen=True)
class FilesSummary:
    """The number of images read and objects found, why files were skipped, and the paths that were written.

    `pictures` is None if none was drawn.
    """

    images: int
    objects: int
    skipped: tuple[str, ...]
    results: Path
    pictures: Path | None
    table: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What is made of the objects of each image, besides predictions.json.

    Attributes:
        draw: whether a picture is drawn for each image.
        table: a CSV of measured objects to write.
        keep: takes the objects of each image, in the order of the files.
        min_score: objects with a lower score are neither drawn nor measured nor kept; predictions.json holds them all.
            One number for all classes, or one for each.

    Raises:
        ConfigError: `min_score` is no score.
    """

    draw: bool = True
    table: Table | None = None
    keep: Keep | None = None
    min_score: float | Sequence[float] = 0.5

    def __post_init__(self) -> None:
        if not all(0 <= least <= 1 for least in np.atleast_1d(self.min_score)):
            raise ConfigError(f"min score: expected a score from 0 to 1, found {self.min_score}")


USUAL = Outputs()


def predict_files(
    detector: Detector[Any, Any] | Tiled,
    files: Sequence[Path],
    out: Path,
    outputs: Outputs = USUAL,
    *,
    image_ids: Sequence[int | str] | None = None,
    batch_size: int = 1,
    strict: bool = False,
    channels: Sequence[str] = (),
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> FilesSummary:
    """Predicts files and writes `out/predictions.json`, pictures, and what else `outputs` asks for.

    The JSON holds COCO results, each with its `file_name`. A file that cannot be read is reported on standard error and
    skipped, or refused with `strict`. Pages that are not read are reported, too. An interrupted run also writes the
    results that it has found.

    Args:
        image_ids: the id of each file in a data set; by default they count from 1.
        batch_size: images that pass through the network together.
        channels: the names of the model's channels; empty for a model of RGB.
        track: wraps the results with the number of files, or the tiles of a single file, for a progress bar.

    Raises:
        ConfigError: `batch_size` is below 1, a file cannot be written or is one that is read, there are no masks to
            measure, or as for `Table.sizes`.
        ImageError: with `strict`, the first file that cannot be read; or as for `Table.sizes`.
    """
    table, keep = outputs.table, outputs.keep
    check_folder(out)
    target = out / "predictions.json"
    check_file(target, *files)
    if outputs.draw:
        _check_pictures(files, out)
    if table is not None:
        check_file(table.path, *files)
        if table.path.resolve() == target.resolve():
            raise ConfigError(f"{table.path}: expected a file to write, found that of the results; choose another path")
    sides = None if table is None else table.sizes(files)
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    skipped: list[str] = []
    count = drawn = 0

    def id_of(number: int) -> int | str:
        return number if image_ids is None else image_ids[number - 1]

    def write(item: tuple[int, Path], image: Pixels, found: Instances) -> _Written:
        number, file = item
        good = found.with_score(outputs.min_score)
        drawn = outputs.draw and _draw(image, good, out / picture_name(number, file))
        entries = [{"file_name": str(file), **entry} for entry in to_coco_results(found, id_of(number))]
        return _Written(
            entries, [] if sides is None else measured(image, good, str(file), sides[number - 1]), good, drawn
        )

    def read(item: tuple[int, Path]) -> Pixels:
        return (open_pixels if isinstance(detector, Tiled) else read_image)(item[1], _note, channels)

    items = list(enumerate(files, start=1))
    done = stream_images(detector, items, read, write, batch_size=batch_size, track=track)
    try:
        for (number, file), written in done:
            if isinstance(written, ImageError):
                if strict:
                    raise written
                skipped.append(str(written))
                print(f"skipped: {written}", file=sys.stderr)
                continue
            count += 1
            drawn += written.drawn
            results.extend(written.results)
            rows.extend(written.rows)
            if keep is not None:
                keep(id_of(number), file, written.found)
    finally:
        done.close()
        with atomic_write(target) as temporary:
            temporary.write_text(json.dumps(results))
        if table is not None:
            write_table(rows, table)
    pictures, measurements = out if drawn else None, None if table is None else table.path
    return FilesSummary(count, len(results), tuple(skipped), target, pictures, measurements)


def _check_pictures(files: Sequence[Path], out: Path) -> None:
    """Raises ConfigError if the picture of a file would replace a file that is read."""
    pictures = (out / picture_name(number, file) for number, file in enumerate(files, start=1))
    there = [picture for picture in pictures if picture.is_file()]
    read = {file.resolve() for file in files} if there else set()
    for picture in there:
        if picture.resolve() in read:
            raise ConfigError(f"{picture}: expected a file to write, found one that is read; choose another --out")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def _draw(image: Pixels, found: Instances, path: Path) -> bool:
    """Draws the objects into a picture. Returns False, and says so, for an image that is too large to be drawn."""
    from maskrcnn.visualise.objects import draw, enlargement

    height, width = image.shape[:2]
    if height * width > MOST_DRAWN:
        _note(f"{path}: no picture of {width} x {height} pixels is drawn, more than {MOST_DRAWN}")
        return False
    picture = draw(image[0:height, 0:width], found, min_score=0, enlarge=enlargement(height, width))
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return True
