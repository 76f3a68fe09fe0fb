"""Faults of single annotations. Each function finds one kind in some images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hotcoco.mask
import numpy as np

from maskrcnn.data.formats.mask_pictures import label_images, object_masks
from maskrcnn.data.regions import connected_parts
from maskrcnn.doctor.findings import Finding, Severity
from maskrcnn.doctor.objects import Objects
from maskrcnn.doctor.outlines import crossings, extents, overlapping, signed_areas
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, RUN_LENGTHS
from maskrcnn.structures.masks import RLE

SLACK = 2  # pixels by which the edges of a box and of its mask may differ without doubt
SHARE = 0.05  # of its width or height by which an edge may differ more
AREA_SHARE = 0.1  # of the mask by which an area may differ, beside half of its width and height
_FEW = 16.0  # enclosed square pixels below which a polygon may cover no pixel
_WHOLE = 0.98  # of an image that an object covers if it is probably the background


def _found(objects: Objects, number: int, kind: str, what: str, severity: Severity = "hurts", *others: int) -> Finding:
    rows = tuple(int(objects.rows[i]) for i in (number, *others))
    return Finding(kind, what, severity, int(objects.images[number]), rows)


def _words(box: np.ndarray) -> str:
    """x1 y1 x2 y2 as COCO's x, y, width, height."""
    x1, y1, x2, y2 = box.tolist()
    return ", ".join(f"{value:.5g}" for value in (x1, y1, x2 - x1, y2 - y1))


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    return areas


def boxes_beside_masks(objects: Objects) -> Iterator[Finding]:
    """Boxes that are not those of their masks. Below an IoU of 0.5, the box is probably in another unit or order."""
    tight, given = objects.tight, objects.clipped(objects.given)
    common = np.concatenate([np.maximum(given[:, :2], tight[:, :2]), np.minimum(given[:, 2:], tight[:, 2:])], axis=1)
    shared = _areas(common)
    union = _areas(given) + _areas(tight) - shared
    with np.errstate(invalid="ignore"):
        distance = np.abs(given - tight)
        slack = SLACK + SHARE * np.tile(tight[:, 2:] - tight[:, :2], 2)
        apart = (2 * shared < union) & (distance > SLACK).any(axis=1)
        beside = (distance > slack).any(axis=1) | apart
        drawn = (tight[:, 2:] - tight[:, :2] >= 1).all(axis=1)
    for i in np.flatnonzero(beside & drawn & ~objects.crowd).tolist():
        what = f"bbox {_words(objects.given[i])}, mask at {_words(objects.extent[i])} (x, y, width, height)"
        yield _found(objects, i, "box-beside-mask", what, "hurts" if apart[i] else "doubt")


def _beside_image(objects: Objects) -> np.ndarray:
    """(N,) bool: whether a mask lies wholly outside its image."""
    beside = (objects.extent[:, 2:] <= 0) | (objects.extent[:, :2] >= objects.limits_wh)
    found: np.ndarray = beside[:, 0] | beside[:, 1]
    return found


def objects_outside(objects: Objects) -> Iterator[Finding]:
    """Objects whose whole mask lies outside the image."""
    for i in np.flatnonzero(_beside_image(objects)).tolist():
        width, height = objects.limits_wh[i].astype(int).tolist()
        what = f"polygons at {_words(objects.extent[i])} (x, y, width, height), the image has {width} x {height} pixels"
        yield _found(objects, i, "object-outside", what)


def empty_masks(objects: Objects) -> Iterator[Finding]:
    """Masks between the centres of pixels, and run lengths without a pixel."""
    drawn = (objects.kinds == POLYGONS) & ~_beside_image(objects)
    few = drawn & ~((objects.pixels > _FEW) & (_areas(objects.tight) > _FEW))
    for i in np.flatnonzero(few).tolist():
        if not objects.drawn(np.array([i]))[0].area:
            yield _found(objects, i, "empty-mask", f"polygons at {_words(objects.extent[i])} (x, y, width, height)")
    for i in np.flatnonzero((objects.kinds == RUN_LENGTHS) & (objects.pixels == 0)).tolist():
        yield _found(objects, i, "empty-mask", "run lengths without a pixel")


def outside_image(objects: Objects) -> Iterator[Finding]:
    """Polygons and boxes that leave the image by more than a pixel and half a percent, and so are clipped. If less than
    a tenth is inside, the coordinates are probably those of another size."""
    masked = np.isfinite(objects.extent[:, :1])
    spans = np.where(masked, objects.extent, objects.given)
    ends = np.stack([spans, objects.given])
    limit = objects.limits_wh
    beyond = np.maximum(-ends[..., :2], ends[..., 2:] - limit).max(axis=0)
    inside = _areas(objects.clipped(spans)) / np.maximum(_areas(spans), 1e-9)
    left = (beyond > 1 + 0.005 * limit).any(axis=1) & ~_beside_image(objects)
    for i in np.flatnonzero(left & ~objects.crowd).tolist():
        width, height = limit[i].astype(int).tolist()
        what = f"up to {beyond[i].max():.5g} pixels beyond the {width} x {height} of the image"
        yield _found(objects, i, "outside-image", what, "hurts" if inside[i] < 0.1 else "advice")


def areas_beside_masks(objects: Objects) -> Iterator[Finding]:
    """Areas of the file that are not the number of pixels."""
    sides = (objects.tight[:, 2:] - objects.tight[:, :2]).sum(axis=1)
    with np.errstate(invalid="ignore"):
        off = np.abs(objects.areas - objects.pixels) > AREA_SHARE * objects.pixels + sides / 2
    for i in np.flatnonzero(off & ~objects.crowd).tolist():
        pixels = objects.drawn(np.array([i]))[0].area  # polygons of one object may overlap, or leave the image
        if abs(objects.areas[i] - pixels) > AREA_SHARE * pixels + sides[i] / 2:
            yield _found(objects, i, "area-beside-mask", f"area {objects.areas[i]:.6g}, mask {pixels} pixels", "doubt")


def crossing_outlines(objects: Objects) -> Iterator[Finding]:
    """Polygons that cross themselves. It hurts if more than a tenth of the enclosed area is drawn as background or
    enclosed twice."""
    rings = objects.rings
    times = crossings(rings)
    enclosed = np.abs(signed_areas(rings))
    for ring in np.flatnonzero(times).tolist():
        i = int(rings.owners[ring])
        size = (int(objects.limits_wh[i, 1]), int(objects.limits_wh[i, 0]))
        pixels = RLE(size, polygons_to_rle([rings.ring(ring)], size)).area
        lost = abs(pixels - enclosed[ring]) > AREA_SHARE * max(pixels, 1.0) + np.sqrt(pixels)
        what = f"crossings of its outline: {times[ring]}"
        yield _found(objects, i, "crossing-outline", what, "hurts" if lost else "doubt")


def filled_holes(objects: Objects) -> Iterator[Finding]:
    """Polygons inside another polygon of the same object, which are drawn as part of it."""
    rings = objects.rings
    several = np.flatnonzero(np.bincount(rings.owners, minlength=len(objects.rows))[rings.owners] > 1)
    boxes = extents(rings)
    for outer, inner in contained(boxes[several], rings.owners[several]):
        a, b = several[outer], several[inner]
        i = int(rings.owners[a])
        size = (int(objects.limits_wh[i, 1]), int(objects.limits_wh[i, 0]))
        parts = [RLE(size, polygons_to_rle([rings.ring(ring)], size)) for ring in (b, a)]
        if lies_inside(*parts):
            what = f"a polygon of {parts[0].area} pixels lies inside one of {parts[1].area}"
            hurts: Severity = "hurts" if parts[0].area > SHARE * parts[1].area else "doubt"
            yield _found(objects, i, "filled-hole", what, hurts)


def lies_inside(inner: RLE, outer: RLE) -> bool:
    """Whether a part of an object is a hole in another part, or an island in another hole: it lies in a larger one."""
    return 1 < inner.area < outer.area and _share_inside(inner, outer) > 0.99


def contained(boxes: np.ndarray, group: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (outer, inner) of boxes (n, 4) of one group, of which one lies inside the other, but for a pixel."""
    i, j = _pairs(boxes, group)
    i, j = np.concatenate([i, j]), np.concatenate([j, i])
    inside = (boxes[j, :2] >= boxes[i, :2] - 1).all(axis=1) & (boxes[j, 2:] <= boxes[i, 2:] + 1).all(axis=1)
    return list(zip(i[inside].tolist(), j[inside].tolist(), strict=True))


def _pairs(boxes: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of boxes (n, 4) of one group that overlap."""
    i, j = overlapping(boxes[:, 0], boxes[:, 2], group)
    both = np.minimum(boxes[i, 3], boxes[j, 3]) > np.maximum(boxes[i, 1], boxes[j, 1])
    return i[both], j[both]


def _share_inside(inner: RLE, outer: RLE) -> float:
    """The share of the pixels of a mask that another one covers."""
    return float(hotcoco.mask.iou([_plain(inner)], [_plain(outer)], [1])[0, 0])


def _plain(mask: RLE) -> dict[str, Any]:
    return {"size": list(mask.size), "counts": mask.counts}


def repeated_objects(objects: Objects) -> Iterator[Finding]:
    """Objects of one image with nearly the same mask, or the same box if one has no mask: an IoU of 0.8 within a class,
    and of 0.9 for different classes. Objects of one class of which one lies inside the other."""
    masked = objects.kinds != NO_MASK
    kept = np.flatnonzero(~objects.crowd & (~masked | (objects.pixels > 0)))
    boxes = np.where(masked[kept, None], objects.tight[kept], objects.clipped(objects.given)[kept])
    i, j = _pairs(boxes, objects.images[kept])
    areas = _areas(boxes)
    low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
    shared = (high - low).clip(0).prod(axis=1)
    iou, inside = shared / (areas[i] + areas[j] - shared).clip(1e-9), shared / np.minimum(areas[i], areas[j]).clip(1e-9)
    same = objects.labels[kept[i]] == objects.labels[kept[j]]
    maybe = (iou > 0.6) | (same & (inside > 0.95))
    for a, b, alike in zip(kept[i[maybe]].tolist(), kept[j[maybe]].tolist(), iou[maybe].tolist(), strict=True):
        yield from _repeated(objects, min(a, b), max(a, b), alike, bool(masked[a] and masked[b]))


def _repeated(objects: Objects, a: int, b: int, iou: float, masked: bool) -> Iterator[Finding]:
    """The finding of two objects whose boxes have this IoU, or nearly lie inside each other."""
    names = [objects.dataset.categories[label].name for label in objects.labels[[a, b]].tolist()]
    same, inside = objects.labels[a] == objects.labels[b], 0.0
    if masked:
        first, second = sorted(objects.drawn(np.array([a, b])), key=lambda mask: mask.area)
        iou = float(hotcoco.mask.iou([_plain(first)], [_plain(second)], [0])[0, 0])
        inside = _share_inside(first, second)
    elif iou < 0.95:  # different objects may well have similar boxes
        return
    if same and iou >= 0.8:
        what = "the same mask twice" if iou == 1 else f"two annotations with an IoU of {iou:.2f}"
        yield _found(objects, a, "duplicate-object", f"{what} ({names[0]})", "hurts", b)
    elif iou >= 0.9:
        yield _found(objects, a, "two-classes", f"{names[0]} and {names[1]}, with an IoU of {iou:.2f}", "doubt", b)
    elif same and inside > 0.99 and first.area > _FEW:
        what = f"{first.area} of the {second.area} pixels of a {names[0]} are another {names[0]}"
        yield _found(objects, a, "inside-another", what, "doubt", b)


def false_crowds(objects: Objects) -> Iterator[Finding]:
    """Crowd regions of a single polygon. COCO draws crowds as run lengths; a polygon is the outline of one object."""
    polygons = np.bincount(objects.rings.owners, minlength=len(objects.rows))
    for i in np.flatnonzero(objects.crowd & (polygons == 1)).tolist():
        name = objects.dataset.categories[objects.labels[i]].name
        yield _found(objects, i, "false-crowd", f"iscrowd 1 on a single polygon ({name})")


def whole_images(objects: Objects) -> Iterator[Finding]:
    """Objects that cover their whole image."""
    sizes = objects.limits_wh.prod(axis=1)
    for i in np.flatnonzero((objects.pixels >= _WHOLE * sizes) & ~objects.crowd & (sizes > _FEW)).tolist():
        name = objects.dataset.categories[objects.labels[i]].name
        yield _found(objects, i, "whole-image", f"a {name} on {objects.pixels[i] / sizes[i]:.0%} of the image", "doubt")


def separate_parts(objects: Objects) -> Iterator[Finding]:
    """Ids of label images, and masks of one file, in several parts. It hurts if the second part is large."""
    if objects.dataset.format not in (label_images.name, object_masks.name):
        return
    for i, mask in enumerate(objects.drawn(np.arange(len(objects.rows)))):
        parts = sorted((part.area for part in connected_parts(mask)), reverse=True)
        if len(parts) > 1:
            what = f"{len(parts)} parts of {', '.join(map(str, parts[:4]))} pixels"
            yield _found(objects, i, "separate-parts", what, "hurts" if parts[1] > 0.25 * parts[0] else "doubt")


OBJECT_FAULTS: tuple[Callable[[Objects], Iterator[Finding]], ...] = (
    boxes_beside_masks,
    objects_outside,
    empty_masks,
    outside_image,
    areas_beside_masks,
    crossing_outlines,
    filled_holes,
    repeated_objects,
    false_crowds,
    whole_images,
    separate_parts,
)
