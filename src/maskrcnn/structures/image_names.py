"""Finds the image of a data set that a path names, though its folders may be those of another machine."""

from __future__ import annotations

from maskrcnn.structures.records import Records

_Parts = tuple[str, ...]  # folders and file name


class ImageNames:
    """The images of a data set by the last part of their paths."""

    def __init__(self, records: Records) -> None:
        self._images: dict[str, list[tuple[_Parts, int | str]]] = {}
        for record in records:
            parts = _parts(str(record.path))
            self._images.setdefault(parts[-1], []).append((parts, record.image_id))

    def nearest(self, name: str) -> list[int | str]:
        """The ids of the images whose paths end like `name`, in as many parts as possible and in the last one at least.

        There are several if the images have one file name, and the folders in `name` do not tell them apart.
        """
        parts = _parts(name)
        images = self._images.get(parts[-1], [])
        common = [_common(parts, own) for own, _ in images]
        return [image_id for (_, image_id), count in zip(images, common, strict=True) if count == max(common)]

    def may_be(self, name: str, image_id: int | str) -> bool:
        """Whether `name` may be the path of the image with this id: no other image has a path that is as near, unless
        `name` has no folder that could tell them apart."""
        nearest = self.nearest(name)
        return image_id in nearest and (len(nearest) == 1 or self._is_end(name, image_id))

    def _is_end(self, name: str, image_id: int | str) -> bool:
        """Whether the path of the image ends with all parts of `name`."""
        parts = _parts(name)
        return any(own[-len(parts) :] == parts for own, number in self._images[parts[-1]] if number == image_id)


def _parts(path: str) -> _Parts:
    """Folders and file name, with the separators of any system."""
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", ".")) or ("",)


def _common(first: _Parts, second: _Parts) -> int:
    """How many of the last parts of two paths are the same."""
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
