"""To which image of a data set each result belongs.

Results name their image by `image_id`, and those of `maskrcnn predict` by `file_name` too. A detector that has not seen
the data set numbers the images in its own way, and its ids may be those of other images by chance. So file names are
always compared:

- If the file name of every result fits the image with its id, the ids count. A result without a file name needs an id
  of the data set.
- Otherwise the ids are not those of the data set, and only the file names count. Each must fit exactly one image.
- An image has the results of one image id and one file name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.image_names import ImageNames
from maskrcnn.structures.values import is_id, short

_Name = tuple[int | str, str | None]  # image_id and file_name of a result


def place_results(results: Sequence[Any], dataset: Dataset) -> tuple[list[int | str], str | None]:
    """The id of the image in the data set for each result, and a note if the file names decided.

    Raises:
        DataError: a result is no object or has no image_id, or it cannot be told to which image it belongs. The message
            begins with the number of the entry.
    """
    names = [_name(entry, f"entry {i}") for i, entry in enumerate(results)]
    first: dict[_Name, int] = {}  # the first entry of each name
    for i, name in enumerate(names):
        first.setdefault(name, i)
    images = ImageNames(dataset.records) if any(file is not None for _, file in first) else None
    ids = dataset.records.numbers()
    strangers = [name for name in first if not _ids_belong(name, ids, images)]
    if not strangers:
        _require_one_source({name: name[0] for name in first if name[1] is not None}, first)
        return [image_id for image_id, _ in names], None
    if images is None or strangers[0][1] is None:
        found = short(strangers[0][0])
        raise DataError(
            f"entry {first[strangers[0]]}: image_id {found} is not the id of an image in {dataset.path}; write its "
            "ids, or add the file_name of each image"
        )
    places = {name: _by_file(name, images, strangers[0], dataset.path, f"entry {i}") for name, i in first.items()}
    _require_one_source(places, first)
    image_id, file = strangers[0]
    note = (
        f"the results were placed by file_name, because their image ids are not those of {dataset.path.name}: "
        f"{short(file)} has id {short(image_id)} in the results and {short(places[strangers[0]])} there"
    )
    return [places[name] for name in names], note


def _name(entry: Any, where: str) -> _Name:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected an object, found {short(entry)}")
    if "image_id" not in entry:
        raise DataError(f"{where}: expected the keys image_id too, found {', '.join(map(str, entry))}")
    image_id, file = entry["image_id"], entry.get("file_name")
    if not is_id(image_id):
        raise DataError(f"{where}: image_id {short(image_id)} is not the id of an image: expected an integer or a text")
    if file is not None and not isinstance(file, str):
        raise DataError(f"{where}: expected file_name as a text, found {short(file)}")
    return image_id, file


def _ids_belong(name: _Name, ids: Collection[int | str], images: ImageNames | None) -> bool:
    """Whether the data set has the image id, and the file name, if there is one, fits the image with it."""
    image_id, file = name
    if image_id not in ids or images is None or file is None:
        return image_id in ids
    match = images.match(file)
    return image_id in match.ids and (match.certain or len(match.ids) == 1)


def _by_file(name: _Name, images: ImageNames, stranger: _Name, path: Path, where: str) -> int | str:
    """The id of the only image that the file name of a result fits."""
    image_id, file = name
    if file is None:
        raise DataError(
            f"{where}: expected a file_name too, because the image ids of other results are not those of {path}: "
            f"image_id {short(stranger[0])} has file_name {short(stranger[1])}"
        )
    ids = images.match(file).ids
    if len(ids) == 1:
        return ids[0]
    found = f"fits {len(ids)} images, with the ids {short(list(ids))}" if ids else "is not the name of an image there"
    raise DataError(
        f"{where}: image_id {short(image_id)} and file_name {short(file)} do not belong together in {path}: the "
        f"file_name {found}; predict with --data {path.name}, or remove file_name from the results if the ids are right"
    )


def _require_one_source(places: Mapping[_Name, int | str], first: Mapping[_Name, int]) -> None:
    """Raises DataError if results of two images lie on one image of the data set."""
    sources: dict[int | str, _Name] = {}
    for name, place in places.items():
        other = sources.setdefault(place, name)
        if other != name:
            raise DataError(
                f"entry {first[name]}: expected the results of one image for image {short(place)} of the data set, "
                f"found those of two: image_id {short(other[0])} of {short(other[1])}, image_id {short(name[0])} of "
                f"{short(name[1])}; judge the results of each folder by themselves"
            )
