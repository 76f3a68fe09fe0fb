"""What the doctor finds: one `Finding` for each fault, and a title and advice for each kind of fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

# `hurts`: training would learn something wrong, or a figure would be too good. `doubt`: training works around it, or it
# is probably not meant. `advice`: nothing is wrong.
Severity = Literal["hurts", "doubt", "advice"]
SEVERITIES: tuple[Severity, ...] = ("hurts", "doubt", "advice")


class Kind(NamedTuple):
    """A kind of fault: its name for people, and what to do."""

    title: str
    advice: str


KINDS: dict[str, Kind] = {
    "left-out": Kind("left out by the reader", "correct the file; nothing is learned from what is left out"),
    "repaired": Kind("repaired by the reader", "correct the file, or keep the repaired copy of --fix"),
    "missing-image": Kind("image file not found", "name the folder with --images, or remove the entries"),
    "unreadable-image": Kind("image that cannot be read", "get the file again; training skips it"),
    "other-size": Kind("image of another size than its record", "annotate the image again, or correct the record"),
    "turned-image": Kind("image turned by 90 degrees against its record", "save the image upright, without EXIF tag"),
    "exif-turn": Kind(
        "EXIF orientation that the size cannot confirm",
        "look with `data show` whether the annotations fit the upright image, as which it is read",
    ),
    "pages": Kind("image of several pages", "save the other pages as files of their own"),
    "shared-image": Kind(
        "image in more than one split", "keep it in one split; a figure on known images is too good"
    ),
    "shared-photograph": Kind(
        "copies of one photograph in more than one split", "split by photograph, that is by the name before `.rf.`"
    ),
    "repeated-file": Kind(
        "image file listed more than once",
        "join the entries, each teaches the objects of the others as background; --fix leaves out empty and equal ones",
    ),
    "duplicate-image": Kind("image that is there twice", "keep one of the two"),
    "similar-image": Kind("image that looks like another", "keep one of the two, or keep both in one split"),
    "box-beside-mask": Kind(
        "box that is not the box of its mask",
        "a bbox holds x, y, width and height in pixels; without it the box of the mask is used",
    ),
    "empty-mask": Kind(
        "mask that covers no pixel of its image",
        "coordinates are pixels from the top left corner, not fractions of the image",
    ),
    "object-outside": Kind(
        "object wholly outside its image",
        "correct it or delete it; --fix leaves it out; if there are many, the images were annotated in another size",
    ),
    "outside-image": Kind("annotation that leaves its image", "check the size of the image that was annotated"),
    "area-beside-mask": Kind(
        "area that is not the area of its mask", "evaluation sorts objects into small, medium and large by it"
    ),
    "crossing-outline": Kind(
        "polygon that crosses itself", "draw the outline again; where it overlaps itself, the mask has a hole"
    ),
    "filled-hole": Kind(
        "polygon inside another polygon of its object",
        "it is drawn as part of the object; if it is a hole, save the mask as run lengths",
    ),
    "inside-another": Kind(
        "object inside another object of its class", "if it is a hole, cut it out of the other object"
    ),
    "duplicate-object": Kind("object that is annotated twice", "keep one of the two"),
    "two-classes": Kind("object with two classes", "keep the right class"),
    "separate-parts": Kind("id in several separate parts", "give each object its own id, or read them with --parts"),
    "speck": Kind("speck", "remove it if it is a slip of the pen"),
    "whole-image": Kind("object that covers its whole image", "remove it if it is the background"),
    "false-crowd": Kind("crowd flag on what looks like an object", "set iscrowd to 0; crowd regions are not learned"),
    "same-name": Kind("classes that differ only in spelling", "merge the classes or rename one of them"),
    "other-classes": Kind("classes of --val that are not those of the data set", "rename or renumber them"),
    "number-as-name": Kind("class name that says nothing", "give the class its name"),
    "unused-class": Kind("class without objects", "remove the class or add objects"),
    "crowded-image": Kind(
        "image with more objects than a model predicts", "train with --model.detect.max-detections"
    ),
    "too-many-to-learn": Kind("image with more objects than a step learns", "raise --train.max-objects, or crop"),
    "unreached-object": Kind("object that no anchor reaches", "choose other --model.anchors.sizes or ratios"),
    "tiny-object": Kind("object of less than 4 network pixels", "enlarge the images with --image.short-side or scale"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: a key of `KINDS`.
        what: what was found, without the place.
        image: number of the image in the data set; None if the fault belongs to no image.
        rows: the annotations, as rows of the columns of the data set.
        other: the file of another image that belongs to the fault.
    """

    kind: str
    what: str
    severity: Severity
    image: int | None = None
    rows: tuple[int, ...] = ()
    other: Path | None = None

    def place(self, dataset: Dataset) -> str:
        """The annotations and the image in words; empty if the fault belongs to no image."""
        if self.image is None:
            return ""
        ids = as_numpy(dataset.columns["ids"])[list(self.rows)].tolist()
        record = dataset.records[self.image]
        image = f"image {record.image_id} ({record.path.name})"
        return f"annotation {', '.join(map(str, ids))} of {image}" if ids else image

    def sentence(self, dataset: Dataset) -> str:
        """The place and what was found there."""
        return f"{place}: {self.what}" if (place := self.place(dataset)) else self.what

    def to_dict(self, dataset: Dataset) -> dict[str, Any]:
        """The finding for JSON, with the ids and file names of the data set."""
        record = None if self.image is None else dataset.records[self.image]
        return {
            "kind": self.kind,
            "severity": self.severity,
            "what": self.what,
            "image_id": None if record is None else record.image_id,
            "file": None if record is None else str(record.path),
            "annotation_ids": as_numpy(dataset.columns["ids"])[list(self.rows)].tolist(),
            "other_file": None if self.other is None else str(self.other),
        }


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings by severity, then by kind in the order of `KINDS`, then as they were found."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda found: (SEVERITIES.index(found.severity), places[found.kind])))
