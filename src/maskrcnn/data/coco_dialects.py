"""Which files are COCO JSON, and what programs write in its place, turned into plain COCO JSON.

The rules come from files of Detectron2, Segment Anything, LIVECell, Roboflow, labelme2coco, CVAT and datumaro.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from maskrcnn.data.pictures import NO_CLASS, files_in
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.values import as_id

_XYXY = 0  # Detectron2's `BoxMode.XYXY_ABS`; 1 is COCO's x, y, width, height
JSONS_TO_RECOGNISE = 8  # a folder of labelme files has thousands
_KEYS_OF_OTHERS = {"dm_format_version", "items", "item", "label_classes"}  # Datumaro twice, Darwin, Hasty
_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "image_info_")  # that COCO has files of, by their names
_TAIL = 1 << 16  # bytes at the end of a file, in which its categories lie


def is_coco(file: Path) -> bool:
    """Whether a file begins as a COCO JSON or as one of its dialects."""
    outline = json_outline(file)
    if outline is None:
        return False
    first, second, _ = outline.keys
    if outline.is_list:
        return {"file_name", "annotations"} <= first and "bbox_mode" in second  # Detectron2
    darwin_1, hubmap = "image" in first and "filename" in second, "coordinates" in second
    if hubmap or darwin_1 or first & _KEYS_OF_OTHERS or is_panoptic(file):
        return False
    # A large file shows only its images here. Categories alone are the descriptions of another format.
    return bool(first & {"images", "annotations"})


def coco_jsons(folder: Path) -> list[Path]:
    """The JSONs of a folder, also compressed ones, without those of COCO's other tasks."""
    return of_instances(files_in(folder, ".json", ".json.gz"))


def find_json(path: Path) -> Path:
    """The COCO JSON at a path: the file itself, or the one in the folder. Raises DataError if there is not one."""
    if not path.is_dir():
        return path
    found = [path / "annotations.json"] if (path / "annotations.json").is_file() else coco_jsons(path)
    if len(found) > 1:
        found = list(filter(is_coco, found)) or found
    if len(found) != 1:
        listed = ", ".join(p.name for p in found[:5]) or "none"
        raise DataError(f"{path}: expected one COCO JSON in the folder, found {listed}; name the file itself")
    return found[0]


def segment_anything_files(path: Path) -> list[Path]:
    """The JSONs of a folder, if there are several and the first ones are of Segment Anything."""
    files = coco_jsons(path) if path.is_dir() else []
    outlines = map(json_outline, files[:JSONS_TO_RECOGNISE])
    alike = all(outline and {"image", "annotations"} <= outline.keys[0] for outline in outlines)
    return files if len(files) > 1 and alike else []


def is_panoptic(file: Path) -> bool:
    """Whether a file is COCO panoptic JSON: its masks are in pictures, and a category is a thing or stuff."""
    outline = json_outline(file)
    if outline is None or outline.is_list or "segmentation" in outline.keys[1]:
        return False
    if "segments_info" in outline.keys[1]:
        return True
    if "images" not in outline.keys[0] or "annotations" in outline.keys[0]:
        return False
    with file.open("rb") as opened:  # the beginning of a large file has only images
        opened.seek(max(0, file.stat().st_size - _TAIL))
        return b'"isthing"' in opened.read()


def of_instances(files: Sequence[Path]) -> list[Path]:
    """COCO's annotation files without those of its other tasks, if the files of its task of instances are there."""
    if not any(file.name.startswith("instances_") for file in files):
        return list(files)
    return [file for file in files if not file.name.startswith(_OTHER_TASKS)]


def plain_coco(content: Any) -> Any:
    """The content of a JSON as COCO JSON, or as it is if it is nothing that we know.

    - Detectron2's list of images, each with its annotations. The classes have only numbers.
    - Segment Anything's `image` with `annotations`, all of one class.
    - LIVECell's annotations, an object by id.
    """
    if isinstance(content, list) and any(isinstance(entry, Mapping) and "annotations" in entry for entry in content):
        return _of_detectron2(content)
    if isinstance(content, Mapping) and isinstance(content.get("image"), Mapping) and "categories" not in content:
        return of_segment_anything([content])
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), Mapping) and content["annotations"]:
        return {**content, "annotations": list(content["annotations"].values())}
    return content


def of_segment_anything(files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The images of files of Segment Anything, each an `image` with `annotations`, as COCO JSON of one class."""
    images, annotations = [], []
    for file in files:
        image = file["image"]
        images.append({**image, "id": image.get("image_id")})
        entries = file.get("annotations")
        annotations += [
            {**entry, "image_id": image.get("image_id"), "category_id": 1} if isinstance(entry, Mapping) else entry
            for entry in (entries if isinstance(entries, list) else [])
        ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": ONLY_CLASS}]}


def _of_detectron2(content: Sequence[Any]) -> dict[str, Any]:
    images, annotations = [], []
    for number, image in enumerate(content):
        if not isinstance(image, Mapping):
            images.append(image)
            continue
        own = image.get("image_id", number)
        images.append({key: value for key, value in image.items() if key != "annotations"} | {"id": own})
        entries = image.get("annotations")
        for entry in entries if isinstance(entries, list) else []:
            annotations.append(_of_detectron2_object(entry, own) if isinstance(entry, Mapping) else entry)
    numbers = {as_id(entry.get("category_id")) for entry in annotations if isinstance(entry, Mapping)} - {None}
    categories = [{"id": number, "name": str(number)} for number in sorted(numbers, key=str)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _of_detectron2_object(entry: Mapping[str, Any], image: Any) -> dict[str, Any]:
    box = entry.get("bbox")
    if entry.get("bbox_mode", _XYXY) == _XYXY and isinstance(box, list) and len(box) == 4:
        with suppress(TypeError):  # not numbers; the builder says so
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return {**entry, "image_id": image, "bbox": box}


def classes_of_no_object(categories: Sequence[Any], used: Callable[[], Collection[Any]]) -> dict[int | str, str]:
    """The ids of categories that are no classes, each with its name and the reason. No annotation has one of them.

    Roboflow writes the project as category 0 without a supercategory, and labelme2coco writes `_background_`.

    Args:
        used: gives the category ids of all annotations; called only if some category may be no class.
    """
    found: dict[int | str, str] = {}
    for entry in categories if len(categories) > 1 else ():
        number = as_id(entry.get("id")) if isinstance(entry, Mapping) else None
        if number is None:
            continue
        name = str(entry.get("name")).strip()
        if number == 0 and entry.get("supercategory") == "none":
            found[number] = f"{name}, which is the project of Roboflow"
        elif name.lower() in NO_CLASS:
            found[number] = f"{name}, which means no class"
    return {number: reason for number, reason in found.items() if number not in used()} if found else {}


def classes_of_false_crowds(runs: Iterable[tuple[Any, Any, Any]], others: Collection[Any]) -> set[Any]:
    """The category ids whose crowd regions are objects.

    CVAT and datumaro write `iscrowd` 1 for every mask. COCO itself has at most one crowd region of a class in an image.
    So they are objects if every run-length mask of the file is a crowd region, all annotations of the class are such
    masks, and some image has several of them.

    Args:
        runs: category id, image id and `iscrowd` of each annotation with a run-length mask.
        others: category ids of the other annotations.
    """
    several: dict[Any, Counter[Any]] = defaultdict(Counter)
    for category, image, crowd in runs:
        if crowd not in (1, True):
            return set()
        several[category][image] += 1
    return {category for category, images in several.items() if category not in others and max(images.values()) > 1}
