"""COCO figures of a model on a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError, ImageError
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.files.atomic import atomic_write, check_file
from maskrcnn.files.media.windows import Pixels
from maskrcnn.predict import Augmented, Predictor, Tiled, load, stream_images, to_coco_results
from maskrcnn.structures.classes import match_categories
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.values import is_int


def evaluate(
    model: Predictor | Augmented | Tiled | Path | str,
    data: Dataset | Path | str,
    *,
    max_detections: int | None = None,
    results_out: Path | None = None,
    limit: int | None = None,
    strict: bool = False,
    group_by: str | None = None,
    matching: float | None = None,
    analysis: bool = False,
    batch_size: int = 1,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> Report:
    """COCO AP and AR of the masks, boxes and keypoints that a model predicts on a data set.

    If no image can be read, every figure is None, and `Report.undefined` says why.

    Args:
        model: a predictor, alone or inside of test-time augmentation or tiles, or a model file.
        data: a data set, its annotation file, or the folder that holds it.
        max_detections: limit of detections an image, in prediction and in the figures; by default that of the model,
            which for an image in tiles holds for each tile.
        results_out: file to which the COCO results are also written.
        limit: number of images to evaluate, from the first on.
        strict: refuse a data set with broken annotations or images instead of skipping them.
        group_by: a field of the data set's images, for example `modality`; adds the figures of each of its values.
        matching, analysis: as for `evaluate_results`.
        batch_size: images that pass through the network together.
        track: wraps the images with their count, for a progress bar.

    Raises:
        ImageError: with `strict`, an image that cannot be read.
        DataError: the data set is unusable, has no object to judge by or other categories than the model, or `limit` is
            below 1.
        WeightsError: the model file cannot be opened.
    """
    if results_out is not None:
        check_file(results_out, data.path if isinstance(data, Dataset) else data)
    predictor = load(model) if isinstance(model, str | Path) else model
    dataset = data if isinstance(data, Dataset) else read_dataset(data, strict=strict)
    dataset = first_images(dataset, limit)
    require_objects(dataset)
    dataset = match_categories(predictor.config.categories, dataset)
    if max_detections is not None:
        predictor = predictor.with_detections(max_detections)
    results, image_ids = results_of(predictor, dataset, strict=strict, batch_size=batch_size, track=track)
    if results_out is not None:
        with atomic_write(results_out) as temporary:
            temporary.write_text(json.dumps(results))
    return evaluate_results(
        dataset,
        results,
        max_detections=max_detections or _most_detections(predictor, dataset),
        image_ids=image_ids,
        group_by=group_by,
        matching=matching,
        analysis=analysis,
    )


def _most_detections(predictor: Predictor | Augmented | Tiled, dataset: Dataset) -> int:
    """The most detections that an image of the data set can have."""
    if isinstance(predictor, Tiled):
        return max(predictor.most_detections((height, width)) for height, width in dataset.records.sizes_hw.tolist())
    return predictor.config.model.detect.max_detections


def results_of(
    predictor: Predictor | Augmented | Tiled,
    dataset: Dataset,
    *,
    strict: bool = False,
    batch_size: int = 1,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> tuple[list[dict[str, Any]], list[int | str]]:
    """The COCO results of all images of a data set, and the ids of the images that could be read.

    Args, Raises: as for `evaluate`.
    """
    channels = predictor.config.image.channel_names
    results: list[dict[str, Any]] = []
    image_ids: list[int | str] = []

    def entries_of(index: int, image: object, found: Instances) -> list[dict[str, Any]]:
        return to_coco_results(found, dataset.records[index].image_id)

    def read(index: int) -> Pixels:
        opened = dataset.open if isinstance(predictor, Tiled) else dataset.read
        return opened(index, lambda text: print(f"note: {text}", file=sys.stderr), channels)

    images = range(len(dataset))
    with closing(stream_images(predictor, images, read, entries_of, batch_size=batch_size, track=track)) as done:
        for index, entries in done:
            if isinstance(entries, ImageError):
                if strict:
                    raise entries
                print(f"skipped: {entries}", file=sys.stderr)
                continue
            image_ids.append(dataset.records[index].image_id)
            results.extend(entries)
    return results, image_ids


def first_images(dataset: Dataset, limit: int | None) -> Dataset:
    """The data set with its first images only, `limit` of them. Raises DataError if `limit` is below 1."""
    if limit is None:
        return dataset
    if not is_int(limit) or limit < 1:
        raise DataError(f"limit: expected a whole number of 1 or more images to evaluate, found {limit!r}")
    return dataset.subset(range(min(limit, len(dataset))))
