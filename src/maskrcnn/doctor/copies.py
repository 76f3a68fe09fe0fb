"""Images of a data set that are equal to another of it, or to one of another split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from maskrcnn.data.editing.copies import Pictures, equal_pictures
from maskrcnn.data.editing.split import ROBOFLOW
from maskrcnn.doctor.findings import Finding
from maskrcnn.structures.dataset import Dataset


def copied_images(dataset: Dataset, pictures: Pictures, names: Sequence[str]) -> Iterator[Finding]:
    """Images of a data set that are equal to another of it, or to one of another split.

    Args:
        pictures: the images of the data set, and then those of another one.
        names: of the splits.
    """
    for first, later, exact in equal_pictures(pictures):
        if later < len(dataset) and pictures.paths[first] == pictures.paths[later]:
            continue  # one file in two entries of this data set, which `repeated_files` names
        mine, other = (later, first) if later < len(dataset) else (first, later)
        path, sides = pictures.paths[other], pictures.sides[[mine, other]].tolist()
        how = "the same file as" if exact else "the same picture as"
        if sides[0] != sides[1]:
            what = f"{how} {path} in {names[sides[1]]}"
            yield Finding("shared-image", what, "hurts", mine, other=path)
        elif mine < len(dataset):
            count = dataset.records.counts
            differ = other < len(dataset) and count[mine] != count[other]
            what = f"{how} {path.name}" + (", with another number of annotations" if differ else "")
            kind = "duplicate-image" if exact else "similar-image"
            yield Finding(kind, what, "hurts" if differ else "doubt", mine, other=path)


def shared_photographs(dataset: Dataset, pictures: Pictures, names: Sequence[str]) -> Iterator[Finding]:
    """Versions of one photograph, by Roboflow's names, in more than one split: all of one of the splits, because the
    photograph is shared until the last of them is left out."""
    groups: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, path in enumerate(pictures.paths):
        if ROBOFLOW.search(path.stem):
            groups[ROBOFLOW.sub("", path.stem)][int(pictures.sides[number])].append(number)
    for name, by_side in groups.items():
        for first, later in combinations(by_side.values(), 2):
            # As with equal pictures, of two splits of this data set the later one loses its images.
            mine, others = (later, first) if later[0] < len(dataset) else (first, later)
            other, side = pictures.paths[others[0]], names[int(pictures.sides[others[0]])]
            for number in mine:
                if number < len(dataset):
                    what = f"{name} also has a version in {side}: {other.name}"
                    yield Finding("shared-photograph", what, "hurts", number, other=other)
