"""Reads JSON exports of Label Studio (https://labelstud.io): brush masks, polygons, rectangles and ellipses. Writes
tasks that it imports.

Lengths are percent of the original size. A rectangle without a turn is only a box. Of several annotations of a task,
the newest that is not cancelled counts; predictions count if no task is annotated.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from maskrcnn.data.annotation import RawAnnotation, Size
from maskrcnn.data.brush import brush_codes, brush_mask
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import only_file
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, add_picture, files_in, find_pictures
from maskrcnn.data.regions import ellipse, joined, points_of, rectangle, turned
from maskrcnn.data.writing import Holds, Lost, class_name, objects_to_write, shares, with_names
from maskrcnn.errors import DataError, omission
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.images import IMAGE_SUFFIXES
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.files.xml_file import NOT_IN_XML
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import is_id, is_int, is_number, short

name = "Label Studio JSON"
key = "label-studio"
image_folder = "images"
takes = frozenset({"missing"})
holds: Holds = frozenset({"boxes", "scores"})

_JSONS_TO_RECOGNISE = 8
_LOCAL = "/data/local-files/?d="  # the address of a file of a local storage
_AREAS = {"rle", "points", "radiusX", "height"}  # keys of regions with an area


class _Object(NamedTuple):
    """The results of one object: where it is, and its class."""

    geometry: Mapping[str, Any]
    label: str


class _Task(NamedTuple):
    id: int | str
    image: str
    size: Size | None
    objects: list[_Object]


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, is a list of tasks with results."""
    return any(map(_is_export, files_in(path, ".json")[:_JSONS_TO_RECOGNISE] if path.is_dir() else [path]))


def _is_export(file: Path) -> bool:
    outline = json_outline(file)
    if outline is None or not outline.is_list:
        return False
    return bool(outline.keys[0] & {"annotations", "predictions"}) and "data" in outline.keys[0]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a Label Studio export.

    Args:
        path: the JSON, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the JSON.
        strict: raise at the first broken task or result, instead of leaving it out.
        hints: `missing` is used for tasks that nobody has annotated.

    Raises:
        DataError: the JSON cannot be used, or a task or result is broken and `strict` is set.
    """
    found = [file for file in files_in(path, ".json") if _is_export(file)] if path.is_dir() else [path]
    file = only_file(path, found, name)
    content = read_json(file, f"a {name}")
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of tasks, found {short(content)}")
    builder = DatasetBuilder(file, strict=strict)
    tasks = _tasks(builder, content, hints.missing)
    add_named_categories(builder, (o.label for task in tasks for o in task.objects if o.label not in NO_CLASS))
    pictures = find_pictures((task.image for task in tasks), file, images)
    left_out: Counter[str] = Counter()
    for task in tasks:
        size = add_picture(builder, task.id, pictures[task.image], task.size)
        for entry in task.objects if size else ():
            kind, value = str(entry.geometry.get("type")), entry.geometry["value"]
            if entry.label in NO_CLASS:
                left_out[f"{entry.label} is no class"] += 1
            elif not _AREAS & value.keys():
                left_out[f"{kind} has no area"] += 1
            else:
                _add_object(builder, task, entry, value, size or (0, 0))
    for kind, number in left_out.items():
        builder.choice(f"{omission(number, 'result')}, because {kind}")
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `tasks.json` beside the images of each part, and the interface of a project for them as `interface.xml`.

    Masks of one polygon stay polygons, and other masks become brush masks. Objects with scores become predictions.
    Images are named as files of a local storage whose root is `folder`.
    """
    lost: Lost = Counter()
    for part, given in parts.items():
        dataset = with_names(given, NOT_IN_XML, "XML", lost)  # in the tasks, too: labels are those of the interface
        with atomic_write(folder / part / "interface.xml") as temporary:
            temporary.write_text(_interface(dataset), encoding="utf-8")
        with atomic_write(folder / part / "tasks.json") as temporary, temporary.open("w", encoding="utf-8") as file:
            for index, record in enumerate(dataset.records):
                file.write("[" if index == 0 else ",\n")
                image = quote(record.path.relative_to(folder).as_posix())
                task = {"id": index + 1, "data": {"image": f"{_LOCAL}{image}"}, **_annotated(dataset, index, lost)}
                json.dump(task, file, ensure_ascii=False)
            file.write("]\n")
    return lost


def _interface(dataset: Dataset) -> str:
    view = Element("View")
    SubElement(view, "Image", {"name": "image", "value": "$image"})
    for kind in ("BrushLabels", "PolygonLabels", "RectangleLabels"):
        labels = SubElement(view, kind, {"name": kind.lower(), "toName": "image"})
        for category in dataset.categories:
            SubElement(labels, "Label", {"value": category.name})
    return f"{tostring(view, encoding='unicode')}\n"


def _annotated(dataset: Dataset, index: int, lost: Lost) -> dict[str, Any]:
    """The annotation of a task, or its prediction if the objects have scores."""
    annotations = dataset.annotations(index)
    height, width = annotations.image_hw
    results = []
    for number in objects_to_write(annotations, holds, lost):
        kind, value = _value(annotations, number, lost)
        result: dict[str, Any] = {
            "id": f"object{number + 1}",
            "from_name": kind,
            "to_name": "image",
            "type": kind,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, kind: [class_name(dataset, annotations, number, lost)]},
        }
        if annotations.scores is not None:
            result["score"] = float(annotations.scores[number])
        results.append(result)
    if annotations.scores is None:
        return {"annotations": [{"result": results}]}
    score = float(annotations.scores.mean()) if len(annotations) else 0.0
    return {"predictions": [{"model_version": "maskrcnn", "score": score, "result": results}]}


def _value(annotations: Annotations, number: int, lost: Lost) -> tuple[str, dict[str, Any]]:
    """The kind of a region, and where it is: in percent of the image, or as a brush mask."""
    height, width = annotations.image_hw
    percent_xy = (width / 100, height / 100)
    if not annotations.has_mask[number]:
        (x1, y1), (x2, y2) = shares(annotations.boxes[number].reshape(2, 2).astype(np.float64), percent_xy).tolist()
        return "rectanglelabels", {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
    polygons = annotations.polygons(number)
    if len(polygons) == 1:
        return "polygonlabels", {"points": shares(polygons[0], percent_xy).tolist(), "closed": True}
    lost["{object|objects} of several polygons {becomes a brush mask|become brush masks}"] += len(polygons) > 1
    return "brushlabels", {"format": "rle", "rle": brush_codes(annotations.rle(number))}


def _tasks(builder: DatasetBuilder, content: Sequence[Any], missing: str | None) -> list[_Task]:
    """The tasks with annotations. Predictions take their place if no task has any."""
    tasks = [(number, task) for number, task in enumerate(content) if isinstance(task, Mapping)]
    for number, task in enumerate(content):
        if not isinstance(task, Mapping):
            builder.problem(f"task {number}: expected an object with data, found {short(task)}")
    field = "annotations"
    chosen = {number: _newest(task.get(field)) for number, task in tasks}
    if tasks and not any(chosen.values()):
        field = "predictions"
        chosen = {number: _newest(task.get(field)) for number, task in tasks}
        if any(chosen.values()):
            builder.choice("no task is annotated: the predictions are read as annotations")
    unlabelled = [number for number, annotation in chosen.items() if annotation is None]
    if unlabelled and missing != "empty":
        builder.choice(f"{omission(len(unlabelled), 'task', 'without annotations')}; --missing empty keeps such tasks")
    found = []
    for number, task in tasks:
        annotation = chosen[number] or {}
        if number in unlabelled and missing != "empty":
            continue
        own = task.get("id")
        results = [result for result in annotation.get("result") or [] if isinstance(result, Mapping)]
        task_id = own if is_id(own) else number
        objects = _objects(builder, task_id, results)
        found.append(_Task(task_id, _image_name(task), _size(results), objects))
    return found


def _newest(annotations: Any) -> Mapping[str, Any] | None:
    """The newest annotation with results that is not cancelled."""
    usable = [
        entry
        for entry in (annotations if isinstance(annotations, list) else [])
        if isinstance(entry, Mapping) and isinstance(entry.get("result"), list) and not entry.get("was_cancelled")
    ]
    return max(usable, key=lambda entry: str(entry.get("updated_at") or entry.get("created_at") or ""), default=None)


def _image_name(task: Mapping[str, Any]) -> str:
    """The name of a task's image: of the uploaded file, else the address in the data that looks like an image."""
    uploaded = task.get("file_upload")
    if isinstance(uploaded, str) and uploaded:
        return uploaded
    data = task.get("data")
    texts = [text for text in data.values() if isinstance(text, str)] if isinstance(data, Mapping) else []
    images = [text for text in texts if Path(text.partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES]
    images += [text for text in texts if Path(text).suffix.lower() in IMAGE_SUFFIXES]  # `...?d=folder/a.png`
    name = (images or texts or [f"task {task.get('id')} without an image"])[0]
    _, local, file = name.rpartition("?d=")
    return f"/{file}" if local else name  # of the server's folder, not of the data set's


def _size(results: Sequence[Mapping[str, Any]]) -> Size | None:
    sizes = [(result.get("original_height"), result.get("original_width")) for result in results]
    return next(((h, w) for h, w in sizes if is_int(h) and is_int(w) and h > 0 and w > 0), None)


def _objects(builder: DatasetBuilder, task: int | str, results: Sequence[Mapping[str, Any]]) -> list[_Object]:
    """Joins the results of one id: a region and, if the project labels regions separately, its class."""
    geometries: dict[Any, Mapping[str, Any]] = {}
    labels: dict[Any, list[Any]] = defaultdict(list)
    for number, result in enumerate(results):
        value, kind = result.get("value"), str(result.get("type"))
        own = result["id"] if is_id(result.get("id")) else f"#{number}"
        if not isinstance(value, Mapping):
            continue  # a relation between results
        if isinstance(value.get(kind), list):
            labels[own] += value[kind]
        if kind not in ("labels", "choices", "textarea", "rating", "number"):
            geometries[own] = result
    found = []
    for own, result in geometries.items():
        names = {str(label) for label in labels[own]}
        if len(names) > 1:
            builder.problem(f"task {task}: result {own}: expected one class, found {', '.join(sorted(names))}")
        else:
            found.append(_Object(result, next(iter(names), ONLY_CLASS)))
    return found


def _add_object(builder: DatasetBuilder, task: _Task, entry: _Object, value: Mapping[str, Any], size: Size) -> None:
    own = f"{task.id}:{entry.geometry.get('id')}"
    try:
        if entry.geometry.get("image_rotation"):
            raise DataError(
                f"expected an image without a turn, found image_rotation {entry.geometry['image_rotation']}"
            )
        if "rle" not in value and "points" not in value and "radiusX" not in value and not value.get("rotation"):
            x, y, w, h = _lengths(value, ("x", "y", "width", "height"), size)
            builder.add_annotation(RawAnnotation(task.id, entry.label, own, box=(x, y, w, h)))
        else:
            builder.add_annotation(RawAnnotation(task.id, entry.label, own, **joined([_part(value, size)], size)))
    except DataError as error:
        builder.problem(f"task {task.id}: result {entry.geometry.get('id')}: {error}")


def _part(value: Mapping[str, Any], size: Size) -> np.ndarray | RLE:
    """The (n, 2) polygon of a region in pixels, or its mask."""
    if "rle" in value:
        return RLE.from_dense(brush_mask(value["rle"], size))
    if "points" in value:
        points = points_of(value["points"])
        if len(points) < 3:
            raise DataError(f"expected a polygon of at least 3 points, found {len(points)}")
        return points * (size[1] / 100, size[0] / 100)
    rotation = value.get("rotation") or 0
    if not is_number(rotation):
        raise DataError(f"expected rotation as a number, found {short(rotation)}")
    angle = math.radians(rotation)
    if "radiusX" in value:
        x, y, rx, ry = _lengths(value, ("x", "y", "radiusX", "radiusY"), size)
        return ellipse((x, y), (rx, ry), angle)
    x, y, w, h = _lengths(value, ("x", "y", "width", "height"), size)
    return turned(rectangle(x, y, x + w, y + h), angle, (x, y))  # about the top left corner


def _lengths(value: Mapping[str, Any], keys: Sequence[str], size: Size) -> list[float]:
    """The values of keys in pixels: in turns along x and along y."""
    found = [value.get(key) for key in keys]
    numbers = [number for number in found if is_number(number)]
    if len(numbers) != len(keys):
        raise DataError(f"expected {', '.join(keys)} as numbers in percent, found {short(found)}")
    return [number * size[1 - i % 2] / 100 for i, number in enumerate(numbers)]
