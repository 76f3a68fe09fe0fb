"""Finds the image files of a data set where the tools that write annotations put them.

Every folder is listed once, and no file is asked for. So a hundred thousand images take about a second.
"""

from __future__ import annotations

import filecmp
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from maskrcnn.files.images import IMAGE_SUFFIXES

IMAGE_FOLDERS = ("images", "data", "img", "imgs", "JPEGImages")
ANNOTATION_FOLDERS = frozenset(
    {"annotations", "annotation", "anns", "ann", "labels", "json", "geojson", "rois", "roi", "shapes"}
)
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}
DEPTH = 4  # folders below each other in which files are searched for
MOST_FILES = 500_000  # in such a search

_TO_CLEAN = re.compile(r"[?:\\]")


class Place(NamedTuple):
    """Where an image is, and what was found instead of it; `fault` is empty if the file is there."""

    path: Path
    fault: str = ""


class FoundFile(NamedTuple):
    """A `Place` whose path is text. A hundred thousand of them take half a second less.

    Attributes:
        renamed: whether the file has another suffix than the name.
    """

    path: str
    fault: str = ""
    renamed: bool = False


def find_images(
    names: Sequence[str], annotations: Path, images: Path | None = None, without: Path | None = None
) -> list[Place]:
    """The files of the images of a data set.

    A file is looked for under its whole name, and then under the name without its first folders, in the places below.
    A relative name keeps at least one of its folders, except in `images`, because without any it could be the name of
    another image. A place counts only if the places before it have no such file. Two different files in one place are
    a fault.

    No name leads further than one level above the folder of the annotation file: `../../etc/a.png` is looked for as
    `etc/a.png`, and so is `/elsewhere/etc/a.png`.

    1. `images` and no other place, if it is given.
    2. The folder that an absolute name begins with, if it is not elsewhere.
    3. A folder that is named like the annotation file or like the last word of its name, such as `train` for
       `instances_train.json`. It lies beside the annotation file, one level higher, or in `images` there.
    4. The folder of the annotation file, and `images`, `data`, `img`, `imgs` and `JPEGImages` in it. If the file lies
       in `annotations` or a folder of a similar name, also the same folders one level higher.

    If no image at all is found in these places, all folders below are searched, except for those of another split and
    of another annotation file. Names may differ from the files in what tools change: back-slashes, percent codes, the
    eight hexadecimal digits that Label Studio puts before a name, upper case, and the form of Unicode. A name without
    folders is searched for in all of them, and so is a name that is unlike all others without its folders.

    A name that is found nowhere may be that of the only image with another suffix.

    Args:
        names: the names of the images in the annotation file.
        annotations: the annotation file. Nothing is searched if it does not exist.
        images: the folder of the images.
        without: a folder in which no images lie, but pictures that may have the same names.
    """
    return [Place(Path(found.path), found.fault) for found in find_files(names, annotations, images, without)]


def find_files(
    names: Sequence[str], annotations: Path, images: Path | None = None, without: Path | None = None
) -> list[FoundFile]:
    """The same as `find_images`, with the paths as texts."""
    search = _Search(annotations, images, without, names)
    places = [search.listed(name) for name in names]
    if not annotations.exists() or any(not place.fault for place in places):
        return places
    return [search.below(name) or place for name, place in zip(names, places, strict=True)]


def root_of(home: Path) -> Path:
    """How far names in an annotation file may lead: one level above the folder of the file. The path is absolute."""
    return Path(os.path.abspath(home)).parent


def is_inside(path: Path | str, root: Path) -> bool:
    """Whether a path is `root`, or below it after the `..` of both are followed."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def _kept_inside(directory: str) -> str:
    """The folders of a name, without the first `..` if they lead up by more than one level."""
    if ".." not in directory.split("/"):
        return directory
    direct = os.path.normpath(directory)
    return re.sub(r"^(\.\./)*(\.\.$)?", "", direct) if direct.startswith("../..") else direct


class _Folder:
    """The files of a folder, listed once. A folder that does not exist has none."""

    def __init__(self, path: str) -> None:
        self.path = "" if path in ("", ".") else str(Path(path))
        try:
            self.names = frozenset(os.listdir(path))
        except (OSError, ValueError):  # a name from a file may not even be a valid path
            self.names = frozenset()

    @cached_property
    def by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            found[_key(name)].append(name)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The paths of the image files by their names without suffix."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.names):
            stem, suffix = os.path.splitext(_plain(name))
            if suffix in IMAGE_SUFFIXES:
                found[stem].append(os.path.join(self.path, name))
        return found

    def files(self, base: str, *, exact: bool) -> list[str]:
        """The paths of the files that have this name, or that differ from it in what tools change."""
        if exact:
            return [os.path.join(self.path, base)] * (base in self.names)
        return [os.path.join(self.path, name) for name in self.by_key.get(_key(base), ()) if _alike(base, name)]


class _Search:
    def __init__(self, annotations: Path, images: Path | None, without: Path | None, names: Sequence[str]) -> None:
        self.annotations, self.images, self.without, self.names = annotations, images, without, names
        self.home = images or annotations.parent
        self._root = root_of(self.home)
        self.places = [[images]] if images else usual_places(annotations)
        self._folders: dict[str, _Folder] = {}
        self._groups: dict[str, list[list[_Folder]]] = {}
        tried = ", ".join(os.path.relpath(place, self.home) for group in self.places for place in group)
        self._fault = f"no such file; tried in {self.home.absolute()}: {tried}; name the folder with --images"

    def listed(self, name: str) -> FoundFile:
        """The file of a name in the places that `find_images` describes."""
        cleaned = _cleaned(name)
        for text in dict.fromkeys((cleaned, unquote(cleaned))) if "%" in cleaned else (cleaned,):
            directory, _, base = text.rpartition("/")
            groups = self._groups_of(directory)
            for exact in (True, False):
                for group in groups:
                    if found := [file for folder in group for file in folder.files(base, exact=exact)]:
                        return _only(found)
        stem, suffix = os.path.splitext(_plain(base))
        stem = stem if suffix in IMAGE_SUFFIXES else _plain(base)
        for group in groups:
            if alike := [file for folder in group for file in folder.by_stem.get(stem, ())]:
                return _only(alike)._replace(renamed=True)
        elsewhere = self.images is None and os.path.isabs(name) and not is_inside(name, self._root)
        why = f"an absolute name is used only inside {self._root}; " if elsewhere else ""
        return FoundFile(str(self.home / name), why + self._fault)

    def _groups_of(self, directory: str) -> list[list[_Folder]]:
        """The folders that may hold a file with this directory in its name, in order."""
        if directory not in self._groups:
            parts = [part for part in _kept_inside(directory).split("/") if part not in ("", ".")]
            # Without any of its folders, a relative name could be that of another image.
            whole = directory.startswith("/") or self.images is not None or not parts
            tails = [os.path.join("", *parts[start:]) for start in range(len(parts) + whole)]
            paths = [[os.path.join(place, tail) for place in places] for tail in tails for places in self.places]
            if directory.startswith("/") and self.images is None and is_inside(directory, self._root):
                paths.insert(0, [directory])
            groups = [[self._folder(path) for path in group] for group in paths]
            self._groups[directory] = [kept for group in groups if (kept := [f for f in group if f.names])]
        return self._groups[directory]

    def _folder(self, path: str) -> _Folder:
        if path not in self._folders:
            self._folders[path] = _Folder("" if self.without is not None and Path(path) == self.without else path)
        return self._folders[path]

    def below(self, name: str) -> FoundFile | None:
        """The file of a name anywhere below; None if there is none."""
        directory, _, base = unquote(_cleaned(name)).rpartition("/")
        found = [path for path in self._files_below.get(_key(base), ()) if _alike(base, os.path.basename(path))]
        if not found:
            return None
        # Of several files, those that share the most folders with the name.
        folders = directory.split("/")[::-1]
        shared = [_shared(folders, os.path.dirname(path).split(os.sep)[::-1]) for path in found]
        relative = directory and not directory.startswith("/") and self.images is None
        if relative and not max(shared) and self._times[_key(base)] > 1:
            return None  # without any of its folders, this name could be that of another image
        return _only([path for path, count in zip(found, shared, strict=True) if count == max(shared)])

    @cached_property
    def _times(self) -> Counter[str]:
        """How many of the names are equal without their folders."""
        return Counter(_key(unquote(_cleaned(name)).rpartition("/")[2]) for name in self.names)

    @cached_property
    def _files_below(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        up = self.images is None and self.home.name.lower() in ANNOTATION_FOLDERS
        for number, path in enumerate(self._walk(self.home.parent if up else self.home)):
            if number == MOST_FILES:
                return {}  # whether a name is unique would stay unknown
            found[_key(os.path.basename(path))].append(path)
        return found

    def _walk(self, top: Path) -> Iterator[str]:
        for folder, below, files in os.walk(top):
            depth = len(Path(folder).relative_to(top).parts)
            below[:] = [] if depth == DEPTH else sorted(name for name in below if self._searched(folder, name, files))
            yield from (str(Path(folder, name)) for name in files)

    def _searched(self, folder: str, name: str, files: Sequence[str]) -> bool:
        """Whether a folder may hold the images, rather than those of another split or another annotation file."""
        if name.startswith(".") or Path(folder, name) == self.without:
            return False
        own, splits = splits_in(self.annotations.stem), splits_in(name)
        others = own and splits and not own & splits
        return self.images is not None or not (others or f"{name}.json" in files)


def usual_places(annotations: Path) -> list[list[Path]]:
    """The third and fourth group of `find_images`."""
    home, above = annotations.parent, annotations.parent.parent
    own = dict.fromkeys((annotations.stem, annotations.stem.rpartition("_")[2]))
    named = [floor / inner / name for name in own for floor in (home, above) for inner in ("", "images") if name]
    floors = [home, above] if home.name.lower() in ANNOTATION_FOLDERS else [home]
    return [named, [floor / inner for floor in floors for inner in ("", *IMAGE_FOLDERS)]]


def _only(files: Sequence[str]) -> FoundFile:
    """The first file, if the others are links to it or copies of it; else what is wrong."""
    path, *others = files
    for other in others:
        if os.path.realpath(other) != os.path.realpath(path) and not filecmp.cmp(path, other, shallow=False):
            return FoundFile(path, f"different files of this name: {path} and {other}; name the folder with --images")
    return FoundFile(path)


def _cleaned(name: str) -> str:
    """A name with `/` between folders, without drive, scheme and query. An address begins with `/`."""
    if not _TO_CLEAN.search(name):
        return name
    name = name.rpartition("?d=")[2]  # Label Studio's local files
    if "://" in name:
        name = "/" + name.partition("://")[2].partition("?")[0]
    return re.sub(r"^[A-Za-z]:(?=[/\\])", "", name).replace("\\", "/")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _without_prefix(name: str) -> str:
    return re.sub(r"^[0-9a-f]{8}-(?=.)", "", name)


def _key(name: str) -> str:
    return _without_prefix(_plain(name))


def _alike(one: str, other: str) -> bool:
    """Whether two names of equal `_key` are one image. Two different prefixes belong to two images."""
    one, other = _plain(one), _plain(other)
    return one in (other, _without_prefix(other)) or _without_prefix(one) == other


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of their first entries are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def splits_in(name: str) -> set[str]:
    """The parts of a data set that words in a file name mean: train, val or test."""
    return {SPLITS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in SPLITS}
