"""What a reader of the figures must know: what no figure counts, and which figures are missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from maskrcnn.evaluation.figures import Figures, Scene
from maskrcnn.evaluation.results import Entry
from maskrcnn.evaluation.truth import outside_of_all_ranges

SLACK = 2  # pixels that a box may reach beyond its image without a note
_IN_ENTRIES = {"masks": "segmentation", "boxes": "bbox", "keypoints": "keypoints"}


def notes_on_figures(
    figures: Mapping[str, Figures], truth: Sequence[Entry], kinds: Collection[str], with_keypoints: Collection[int]
) -> list[str]:
    """Says which figures of the kinds in the annotations or the results are missing or undefined.

    Args:
        figures: kind -> its figures, for the kinds that were compared.
        kinds: the kinds that the results hold.
        with_keypoints: labels of the categories that name keypoints.
    """
    annotated = {"boxes": True, "masks": any(e["segmentation"] for e in truth), "keypoints": bool(with_keypoints)}
    notes = []
    for kind, key in _IN_ENTRIES.items():
        if kind in figures:
            if figures[kind]["AP"] is None:
                notes.append(f"the AP of {kind} is undefined: no object with {key} counts")
        elif annotated[kind]:
            notes.append(f"{kind} were not compared: the results have no {key}")
        elif kind in kinds:
            notes.append(f"{kind} were not compared: no annotation has {key}")
    return notes


def notes_on_entries(truth: Sequence[Entry], found: Sequence[Entry], scene: Scene) -> list[str]:
    """Says which annotations no figure counts, and what is odd about the results."""
    notes = []
    objects = [entry for entry in truth if not entry["iscrowd"]]
    ignored = int(outside_of_all_ranges(np.array([entry["area"] for entry in objects])).sum())
    if ignored:
        notes.append(
            f"{ignored} of {len(objects)} objects have an area below 0 or above 10^10 square pixels, so that no figure "
            "counts them, as in the COCO API"
        )
    counts = Counter(entry["image_id"] for entry in objects)
    crowded = [count for count in counts.values() if count > scene.limit]
    if crowded:
        notes.append(
            f"{len(crowded)} images hold more objects than the {scene.limit} detections that count in each, up to "
            f"{max(crowded)}: not all can be found; raise the maximum of detections"
        )
    with_objects = set(counts)
    unfound = len(with_objects - {entry["image_id"] for entry in found})
    if found and 2 * unfound > len(with_objects):
        notes.append(
            f"{unfound} of {len(with_objects)} images with objects have no result; if they were not predicted, judge "
            "only the others"
        )
    boxed = [entry for entry in found if entry["bbox"] is not None]
    boxes = np.array([entry["bbox"] for entry in boxed]).reshape(-1, 4)
    sizes_wh = np.array(scene.sizes).reshape(-1, 2)[[entry["image_id"] for entry in boxed], ::-1]
    beyond = int((boxes[:, :2] + boxes[:, 2:] > sizes_wh + SLACK).any(axis=1).sum())
    if beyond:
        notes.append(
            f"the bbox of {beyond} of {len(boxed)} results ends more than {SLACK} pixels outside of its image; a bbox "
            "holds x, y, width and height in pixels, and not the corners"
        )
    scores = np.array([entry["score"] for entry in found])
    odd = int(((scores < 0) | (scores > 1)).sum())
    if odd:
        notes.append(
            f"{odd} of {len(found)} results have a score below 0 or above 1; only the order of the scores counts"
        )
    return notes
