"""Reads VoTT 2 (https://github.com/microsoft/VoTT): the JSON that a project exports, or the JSONs of its assets.

The tag of a region is its class. A rectangle is only a box. An asset that nobody has visited is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    box_draw,
    entries,
    labels_of,
    of_jsons,
    regions_of,
    rings_draw,
    size_of,
)
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, files_in
from maskrcnn.data.regions import numbers_of, points_of
from maskrcnn.errors import DataError, omission
from maskrcnn.files.json_file import json_outline
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import short, under

name = "VoTT"
key = "vott"
takes = frozenset({"missing"})

_FILES_TO_RECOGNISE = 8
_NOT_VISITED = 0  # state of an asset
_ASSET = frozenset({"asset", "regions"})


class _Content(NamedTuple):
    """What a file holds: images, the names of classes, and the number of assets that nobody has visited."""

    images: list[Labelled]
    tags: list[str]
    unlabelled: int


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has an asset with regions, or is an export of a project."""
    return any(_is_asset(file) or _is_export(file) for file in _jsons(path)[:_FILES_TO_RECOGNISE])


def _jsons(path: Path) -> list[Path]:
    """The JSONs of a folder, or beside a project's own file, which names the assets but holds no regions."""
    folder = path.parent if path.suffix.lower() == ".vott" else path
    return files_in(folder, ".json") if folder.is_dir() else [path]


def _is_asset(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and not outline.is_list and outline.keys[0] >= _ASSET


def _is_export(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and "assets" in outline.keys[0] and outline.keys[2] >= _ASSET


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads an export of VoTT, or the assets of a folder.

    Args:
        path: the export, an asset, a project `.vott`, or a folder, in which an export counts before the assets.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or region, instead of leaving it out.
        hints: `missing` is used for assets that nobody has visited.

    Raises:
        DataError: there are no assets, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    jsons = _jsons(path)
    files = [file for file in jsons if _is_export(file)] or jsons
    found = of_jsons(builder, files, "a VoTT JSON", partial(_contents, hints.missing))
    items = [item for content in found for item in content.images]
    tags = {tag for content in found for tag in content.tags}
    if unlabelled := sum(content.unlabelled for content in found):
        builder.choice(f"{omission(unlabelled, 'asset', 'that nobody has visited')}; --missing empty keeps such assets")
    add_named_categories(builder, (tags - NO_CLASS) | labels_of(items))
    add_labelled(builder, items, images)
    return builder.build()


def _contents(missing: str | None, builder: DatasetBuilder, file: Path, where: str, content: Any) -> Iterator[_Content]:
    """What a file holds. A broken asset is recorded as a problem."""
    items, unlabelled = [], 0
    for at, entry in _assets(where, content):
        if under(entry, "asset", "state") == _NOT_VISITED and missing != "empty":
            unlabelled += 1
            continue
        try:
            items.append(_image(builder, at, file, entry))
        except DataError as error:
            builder.problem(f"{at}: {error}")
    yield _Content(items, _tags(content), unlabelled)


def _tags(content: Any) -> list[str]:
    """The classes of an exported project."""
    tags = under(content, "tags")
    found = [under(tag, "name") for tag in tags] if isinstance(tags, list) else []
    return [tag for tag in found if isinstance(tag, str)]


def _assets(where: str, content: Any) -> Iterator[tuple[str, Any]]:
    """The assets of a file, each with its place. A JSON of something else has none."""
    assets = under(content, "assets")
    if isinstance(assets, Mapping):
        for own, entry in assets.items():
            yield f"{where}: assets[{short(own)}]", entry
    elif under(content, "asset") is not None:
        yield where, content


def _image(builder: DatasetBuilder, where: str, file: Path, entry: Any) -> Labelled:
    asset = under(entry, "asset")
    file_name, path = under(asset, "name"), under(asset, "path")
    names = [text.removeprefix("file:") for text in (path, file_name) if isinstance(text, str) and text]
    if not names:
        raise DataError(f"expected an asset with a name and a path, found {short(asset)}")
    regions = regions_of(builder, f"{where}: regions", entries(entry, "regions"), _region)
    return Labelled(
        file_name if isinstance(file_name, str) else names[0],
        where,
        file,
        names,
        size_of(under(asset, "size")),
        regions,
    )


def _region(entry: Mapping[str, Any]) -> Region:
    tags = [tag for tag in entries(entry, "tags") if isinstance(tag, str)]
    if len(tags) != 1:
        raise DataError(f"expected one tag, which is the class, found {', '.join(tags) or 'none'}")
    kind = str(entry.get("type")).lower()
    if kind == "rectangle":
        x, y, width, height = numbers_of(entry.get("boundingBox"), "left", "top", "width", "height")
        return Region(tags[0], kind, box_draw(x, y, width, height))
    if kind in ("polyline", "point"):
        return Region(tags[0], kind, None)
    return Region(tags[0], kind, rings_draw([points_of(entry.get("points"))]))
