"""`DatasetBuilder` builds the data set of every format, and holds all rules for broken annotations.

Training and evaluation use the same objects. The rules give the same average precision as the COCO API, and keep every
object of which enough is usable. "Rejected" below means that the annotation is left out, "repaired" that it is kept
without its bad part. Both are named, and both raise an error when strict:

- An id is an integer or a string; 1.0 is the integer 1. Two categories or two different images with one id are an
  error, because their annotations cannot be told apart. An annotation without an id gets its position as id. So does
  one that repeats an id, which is repaired. An image or annotation that repeats another in everything is rejected.
- A crowd flag is 0 or 1, or a text or truth value that means one of them. An annotation with another flag is rejected.
- A box keeps its annotated values, even beyond the border of the image. Training clips it to the image, or uses the
  tight box of the mask if the box lies outside. An object without a box gets the tight box of its mask. A box that is
  not four finite numbers, reaches beyond `FARTHEST` or has no area is repaired in the same way. Without a mask, an
  object with such a box or with a box outside the image is rejected.
- A mask whose size differs from its image is rejected. An object with a box whose mask covers no pixel is repaired:
  training learns its box alone, and no figure of masks can find it, as in the COCO API. Without a box it is rejected.
- A polygon that has fewer than three points, or a coordinate that is not finite or beyond `FARTHEST`, is left out of
  its mask, which is repaired. A mask without any other polygon is rejected.
- Polygons that enclose an area are objects, even if they are too small to cover the centre of a pixel.
- An area that is not a finite number is replaced by the area of the mask, or of the box if there is no mask.
- Each category may have its own number of keypoints. Only training a keypoint head needs the same number in all.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maskrcnn.config import Category
from maskrcnn.data.annotation import Drawn, RawAnnotation, Size, category_of, drawn, unique_ids
from maskrcnn.data.bulk.plain import Known, PlainAnnotations
from maskrcnn.data.doubts import first_of, no_image, repeated_names, with_id
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import read_labelled
from maskrcnn.structures.masks import MOST_PIXELS
from maskrcnn.structures.records import ByteBuffer, Records, pack_fields, pack_ids
from maskrcnn.structures.values import as_id, is_number, short, whole_number

_MOST_WAITING = 20_000  # annotations that are drawn together


class _Image(NamedTuple):
    """The number of an image in the order of adding, and values of its `Record` in the form that `Records` stores."""

    number: int
    size: Size
    path: str
    fields: bytes
    fault: str


class DatasetBuilder:
    """Collects and checks categories, images and annotations, added in this order, and builds the data set.

    Args:
        path: the annotation file or folder; every message begins with it.
        strict: raise at the first broken image or annotation, instead of leaving it out and naming it in
            `Dataset.problems`.
        keypoint_shift: added to x and y of every keypoint: `PIXEL_CENTRE` for a format with pixel indices.
    """

    def __init__(self, path: Path, *, strict: bool = False, keypoint_shift: float = 0.0) -> None:
        self.path = path
        self.strict = strict
        self.keypoint_shift = keypoint_shift
        self._turns = count()  # of problems and annotations, for the order in which they came
        self._problems: list[tuple[int, str]] = []
        self._choices: list[str] = []
        self._repairs: dict[str, tuple[int, str]] = {}  # what was done: how often, and the first annotation
        self._categories: dict[int | str, tuple[int, Category]] = {}
        self._images: dict[int | str, _Image] = {}
        self._left_out: set[int | str] = set()  # ids of broken images
        self._waiting: list[tuple[RawAnnotation, int, int]] = []  # not yet drawn, with position in the file and turn
        self._added = 0  # number of the last annotation of the file, with those left out
        self._seen: dict[int | str, int] = {}  # place of each id among the annotations that are kept
        # One entry for each annotation that is kept.
        self._ids: list[int | str | None] = []  # None for an annotation without an id of its own
        self._positions = array("q")  # among all annotations of the file, counted from 1
        self._rows = array("q")  # position of the image, position of the category
        self._floats = array("d")  # x, y, width, height, area
        self._crowd, self._kinds = bytearray(), bytearray()
        self._spans = array("q")  # where the mask begins and ends in the buffer
        self.buffer = ByteBuffer()
        self._keypoints: dict[int, np.ndarray] = {}
        self._scores = array("d")  # empty for what people have annotated

    @property
    def problems(self) -> tuple[str, ...]:
        """What was left out and why, in the order of the files."""
        return tuple(text for _, text in sorted(self._problems, key=lambda entry: entry[0]))

    def problem(self, message: str) -> None:
        """Records what is left out and why; raises DataError if `strict`."""
        self._problem(message, next(self._turns))

    def _problem(self, message: str, turn: int) -> None:
        if self.strict:
            raise DataError(f"{self.path}: {message}")
        self._problems.append((turn, f"{self.path}: {message}"))

    def repeat(self, problems: Sequence[str]) -> None:
        """Records the `problems` of another builder for the same path."""
        self._problems += [(next(self._turns), text) for text in problems]

    def choice(self, message: str) -> None:
        """Records what a person should know of the reading, although nothing is broken."""
        self._choices.append(f"{self.path}: {message}")

    def _repair(self, done: str, where: str, fault: str) -> None:
        """Counts what was done to an annotation that is kept; raises DataError if `strict`."""
        if self.strict:
            raise DataError(fault)
        times, first = self._repairs.get(done, (0, f"{where}: {fault}"))
        self._repairs[done] = times + 1, first

    def add_category(
        self,
        number: Any,
        name: Any,
        keypoints: Sequence[str] = (),
        skeleton: Sequence[tuple[int, int]] = (),
        sigmas: Sequence[float] = (),
    ) -> None:
        """Adds a class of objects.

        Args:
            number: its id.
            keypoints: their names.
            skeleton: limbs, as pairs of 0-based positions among the keypoints.
            sigmas: standard deviation of each keypoint for OKS; empty for the defaults.

        Raises:
            DataError: the category is broken. It is never left out, because labels would shift.
        """
        category = category_of(self.path, number, name, keypoints, skeleton, sigmas)
        if category.id in self._categories:
            raise DataError(f"{self.path}: two categories have id {short(number)}: give each its own")
        self._categories[category.id] = len(self._categories), category

    def add_image(
        self, number: Any, path: Path | str, height: Any, width: Any, fields: Mapping[str, Any], fault: str = ""
    ) -> None:
        """Adds an image without reading its file. A broken entry is recorded as a problem.

        Args:
            number: its id.
            height, width: pixels.
            fields: all other fields of the image, as JSON types.
            fault: as in `Record`.

        Raises:
            DataError: another image has the same id, or the entry is broken and `strict` is set.
        """
        key, rows, columns = as_id(number), whole_number(height), whole_number(width)
        if key is None:
            self.problem(f"expected images with an id, found {short(number)} for {Path(path).name}")
        elif rows is None or columns is None or rows <= 0 or columns <= 0 or rows * columns > MOST_PIXELS:
            found = f"of at most {MOST_PIXELS} pixels together, found {short(height)}, {short(width)}"
            self._left_out.add(key)
            self.problem(f"image {short(number)}: expected a positive integer height and width, {found}")
        else:
            image = _Image(len(self._images), (rows, columns), str(path), pack_fields(fields), fault)
            first = self._images.setdefault(key, image)
            if first is not image and first._replace(number=image.number) == image:
                self.problem(f"image {short(number)}: expected one entry for each image, found the same entry before")
            elif first is not image:
                both = f"{Path(first.path).name} and {Path(path).name}: annotations cannot be told apart; change one id"
                raise DataError(f"{self.path}: two images have id {short(number)}, {both}")

    def known(self) -> Known:
        """What `unremarkable` must know of the images and categories that were added."""
        images = {key: (image.number, *image.size) for key, image in self._images.items() if isinstance(key, int)}
        labels = {
            key: (label,)
            for key, (label, category) in self._categories.items()
            if isinstance(key, int) and not category.keypoints
        }
        return Known(images, labels)

    def add_plain(self, plain: PlainAnnotations) -> None:
        """Adds annotations that `unremarkable` found, with masks in `buffer`. No other annotation has their ids."""
        self._ids += plain.ids.tolist()
        self._added = max(self._added, int(plain.numbers.max(initial=0)))
        self._positions.frombytes(plain.numbers.tobytes())
        self._rows.frombytes(np.stack([plain.images, plain.labels], axis=1).tobytes())
        self._floats.frombytes(np.concatenate([plain.boxes, plain.areas[:, None]], axis=1).tobytes())
        self._crowd += (plain.crowd == 1).tobytes()
        self._kinds += plain.kinds.tobytes()
        self._spans.frombytes(plain.spans.tobytes())

    def add_annotation(self, raw: RawAnnotation, number: int | None = None) -> None:
        """Adds an annotation. A broken one is recorded as a problem when its turn comes to be drawn.

        Args:
            number: its position among all annotations of the file, from 1; default: after the last one.

        Raises:
            DataError: the annotation is broken and `strict` is set.
        """
        number = self._added + 1 if number is None else number
        self._added = max(self._added, number)
        self._waiting.append((raw, number, next(self._turns)))
        if self.strict or len(self._waiting) == _MOST_WAITING:
            self._draw()

    def _draw(self) -> None:
        """Draws the annotations that wait, by several processes if there are many, and stores them."""
        waiting, self._waiting = self._waiting, []
        images = [with_id(raw.image_id, self._images) for raw, _, _ in waiting]
        jobs = [(raw, image.size) for (raw, _, _), image in zip(waiting, images, strict=True) if image]
        found = iter(of_each(drawn, jobs, "objects"))
        for (raw, number, turn), image in zip(waiting, images, strict=True):
            own = as_id(raw.id)
            where = raw.where or f"annotation {short(number if own is None else own)} of image {short(raw.image_id)}"
            try:
                if image is None:
                    raise DataError(no_image(as_id(raw.image_id), self._images, self._left_out))
                self._append(raw, own, number, where, image, next(found))
            except DataError as error:
                fault = str(error)
            else:
                continue
            self._problem(f"{where}: {fault}", turn)

    def _append(
        self, raw: RawAnnotation, own: int | str | None, number: int, where: str, image: _Image, mask: Drawn
    ) -> None:
        found = with_id(raw.category_id, self._categories)
        if found is None:
            raise DataError(f"no category has id {short(raw.category_id)}")
        label, category = found
        if mask.fault:
            raise DataError(mask.fault)
        points = None
        if category.keypoints:
            points = read_labelled(raw.keypoints, len(category.keypoints))
            points[points[:, 2] > 0, :2] += self.keypoint_shift
        counted = mask.pixels if mask.pixels >= 0 else math.nan
        rows = array("q", (image.number, label))
        floats = array("d", (*mask.box, raw.area if is_number(raw.area) else counted))
        first = len(self._ids) if own is None else self._seen.setdefault(own, len(self._ids))
        repeats = first < len(self._ids)
        if repeats and self._is_same(first, rows, floats, mask, points):
            raise DataError(f"expected a unique id, found the same as annotation {self._positions[first]} of the file")
        for given, known in ((raw.image_id, self._images), (raw.category_id, self._categories)):
            if as_id(given) not in known:
                fault = f"expected all ids as numbers or all as text, found {short(given)}"
                self._repair("an id that is a number here and text there is read as one id", where, fault)
        if mask.bad_part:
            self._repair("the object is kept without the bad part of its mask", where, mask.bad_part)
        if mask.bad_box:
            self._repair("the box of the mask replaces the bbox", where, mask.bad_box)
        if repeats:
            both = f"{self._positions[first]} and {number}"
            self._repair(
                "an id that is not unique is ignored",
                where,
                f"expected a unique id, found it in annotations {both} of the file",
            )
            own = None
        if points is not None:
            self._keypoints[len(self._ids)] = points
        self._ids.append(own)
        self._positions.append(number)
        self._rows.extend(rows)
        self._floats.extend(floats)
        if raw.score is not None:
            self._scores.append(raw.score)
        self._crowd.append(mask.crowd)
        self._kinds.append(mask.kind)
        self._spans.extend(self.buffer.add(mask.content))

    def _is_same(
        self, place: int, rows: array[int], floats: array[float], mask: Drawn, points: np.ndarray | None
    ) -> bool:
        """Whether the annotation at a place among those that are kept has these values."""
        return (
            self._rows[2 * place : 2 * place + 2] == rows
            and self._floats[5 * place : 5 * place + 5].tobytes() == floats.tobytes()  # NaN is itself
            and (self._crowd[place], self._kinds[place]) == (mask.crowd, mask.kind)
            and self.buffer.view(*self._spans[2 * place : 2 * place + 2]).tobytes() == mask.content
            and np.array_equal(self._keypoints.get(place, ()), () if points is None else points)
        )

    def build(self) -> Dataset:
        """The data set of everything that was added.

        Raises:
            DataError: there is no category or no usable image.
        """
        why = first_of(self.problems, self.path)
        if not self._categories:
            raise DataError(f"{self.path}: expected at least one category with id and name, found none{why}")
        if not self._images:
            found = f"none of its images can be used{why}" if why else "it has no images"
            raise DataError(f"{self.path}: the data set is empty: {found}")
        self._draw()
        problems = self.problems
        # Annotations of one image become adjacent, in the order of the file.
        images, categories_added = np.array(self._rows, dtype=np.int64).reshape(-1, 2).T
        order = np.lexsort((np.array(self._positions), images))
        counts = np.bincount(images, minlength=len(self._images))
        firsts = np.cumsum(counts) - counts
        added = self._images.values()
        records = Records.of(
            list(self._images),
            paths := [image.path for image in added],
            [image.fields for image in added],
            [image.fault for image in added],
            np.column_stack([np.array([image.size for image in added]), firsts, counts]),
        )
        # Labels are positions among the categories sorted by id, integers before strings.
        ids = sorted(self._categories, key=lambda number: (isinstance(number, str), number))
        label_of = np.empty(len(ids), dtype=np.int64)
        label_of[[self._categories[number][0] for number in ids]] = np.arange(len(ids))
        floats = torch.from_numpy(np.array(self._floats, dtype=np.float64).reshape(-1, 5)[order])
        places, annotation_ids = order.tolist(), unique_ids(self._ids, self._positions, self._added)
        columns = {
            "ids": pack_ids([annotation_ids[i] for i in places]),
            "annotated_boxes": floats[:, :4].contiguous(),
            "labels": torch.from_numpy(label_of[categories_added[order]]),
            "crowd": torch.from_numpy(np.frombuffer(self._crowd, dtype=np.bool_)[order]),
            "areas": floats[:, 4].contiguous(),
            "kinds": torch.from_numpy(np.frombuffer(self._kinds, dtype=np.uint8)[order]),
        }
        categories = tuple(self._categories[number][1] for number in ids)
        if most := max(len(category.keypoints) for category in categories):
            keypoints = np.zeros((len(places), most, 3))
            for row, place in zip(keypoints, places, strict=True):
                points = self._keypoints.get(place, keypoints[:0, 0])
                row[: len(points)] = points
            columns["keypoints"] = torch.from_numpy(keypoints)
        if self._scores:
            columns["scores"] = torch.from_numpy(np.array(self._scores)[order])
        segmentations = self.buffer.packed(np.array(self._spans, dtype=np.int64).reshape(-1, 2)[order])
        notes = [f"{done} (annotations: {times}), first: {first}" for done, (times, first) in self._repairs.items()]
        notes += repeated_names(categories, paths)
        noted = tuple(f"{self.path}: {note}" for note in notes)
        return Dataset(self.path, records, categories, problems, columns, segmentations, noted, tuple(self._choices))
