"""Finds the image of a data set that a path names, though its folders may be those of another machine."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from maskrcnn.structures.records import Records


@dataclass(frozen=True)
class Match:
    """The images that a path may name, by id.

    Attributes:
        ids: none if no image has this file name; several if the path cannot tell them apart.
        certain: whether no folder in the path contradicts the images, so that an id may choose among them.
    """

    ids: tuple[int | str, ...]
    certain: bool


class ImageNames:
    """The images of a data set by the ends of their paths, in the folder that holds them all."""

    def __init__(self, records: Records) -> None:
        paths = {record.image_id: _parts(str(record.path)) for record in records}
        lowest, highest = (choose(parts[:-1] for parts in paths.values()) for choose in (min, max))
        depth = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(lowest, highest, strict=False))))
        self._paths = {image_id: "/".join(parts[depth:]) for image_id, parts in paths.items()}
        self._by_end: dict[str, list[int | str]] = {}
        for image_id, parts in paths.items():
            for start in range(depth, len(parts)):
                self._by_end.setdefault("/".join(parts[start:]), []).append(image_id)

    def match(self, name: str) -> Match:
        """The images whose paths end as `name` does, in as many parts as possible and at least in the file name."""
        parts = _parts(name)
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if end in self._by_end:
                ids = self._by_end[end]
                whole = ids if start == 0 else [image_id for image_id in ids if self._paths[image_id] == end]
                return Match(tuple(whole or ids), bool(whole))
        return Match((), certain=False)


def _parts(path: str) -> tuple[str, ...]:
    """Folders and file name, with the separators of any system."""
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
