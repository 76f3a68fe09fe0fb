"""Compares an exported network with the one in PyTorch.

Legend: B images, D detections per image, K runs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from maskrcnn.config import Config
from maskrcnn.errors import MaskRCNNError
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.boxes import clip, pairwise_iou, trim, whole_images
from maskrcnn.ops.rle import decode_runs, spans_from_runs
from maskrcnn.predict.exported import Arrays
from maskrcnn.predict.images import paste, preprocess
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.masks import RLE, Masks

BOX_PX = 0.01  # pixels of the original image, each edge
SCORE = 2e-4
PROBABILITY = 5e-3  # of the cells of a mask
TIE_IOU = 0.3  # of two boxes of one object
WHOLE_IOU = 0.999  # of all whole masks of the graph and all pasted masks together
MOVED = 0.05  # of all keypoints: where two pixels have nearly the same logit, either may be the highest
ROUNDING = 2e-7  # relative standard deviation of changes of weights: the last digit of fp32
CHANGES = 12  # of all weights, each with other random numbers
BATCHES = ((1, 5, 8), (3, 7, 4))  # images, and multiples in height and width of 32 pixels, or of image.divisor


class Exactness(NamedTuple):
    """How well an engine agrees with PyTorch.

    Attributes:
        objects: number of detections that were compared.
        box_px, score, probability: the largest differences of edges, scores and cells of masks.
        whole_iou: IoU of the whole masks of the graph and of `ops.paste`; 1 without them.
        moved: the share of keypoints that lie elsewhere, with a score that is as high.
    """

    objects: int
    box_px: float
    score: float
    probability: float
    whole_iou: float
    moved: float


class DifferentError(MaskRCNNError, RuntimeError):
    """An engine does not compute what PyTorch computes."""


class CheckedBatch(NamedTuple):
    """What both are compared on.

    Attributes:
        batch: the input of PyTorch.
        original_hw, scale_xy: (B, 2) each, as an exported network takes them.
        given: the input of the engine.
    """

    batch: ImageBatch
    original_hw: np.ndarray
    scale_xy: np.ndarray
    given: Arrays


def check(run: Callable[[Arrays], Arrays], network: MaskRCNN, config: Config, *, resize: bool = False) -> Exactness:
    """Runs both on batches of several sizes and compares what they find.

    PyTorch in fp32 rounds, too, and in networks of random weights rounding grows from layer to layer. If the engine
    differs by more than the limits, it is compared with PyTorch in float64, under the same limits.

    Rounding also decides between two boxes, two levels of the pyramid, or two grids of RoIAlign. So if the engine
    differs from float64, too, the weights in PyTorch are changed by `ROUNDING` several times. An object that PyTorch
    then loses may be missing, and one that it then finds may be there. All others must still agree with float64.

    Args:
        resize: whether the engine takes images, which it resizes.

    Raises:
        DifferentError: they differ by more than the constants of this module.
    """
    found = agreement(run, network, config, list(_resized(config) if resize else _batches(config)))
    objects, box_px, score, probability, ious, moved = zip(*found, strict=True)
    return Exactness(sum(objects), max(box_px), max(score), max(probability), min(ious), max(moved))


def agreement(
    run: Callable[[Arrays], Arrays], network: MaskRCNN, config: Config, cases: Sequence[CheckedBatch]
) -> list[Exactness]:
    """The comparison with the first reference with which the engine agrees; raises as `check`."""
    failures = []
    for reference, rounded in _references(network, config, cases):
        try:
            return [_compare(run, reference, config, *case) for case in zip(cases, rounded, strict=True)]
        except DifferentError as error:
            failures.append(error)
    raise failures[0]


def _references(
    network: MaskRCNN, config: Config, cases: Sequence[CheckedBatch]
) -> Iterator[tuple[MaskRCNN, list[list[list[FoundObjects]]]]]:
    """Networks to compare with, and for each batch what PyTorch finds in it after changes of its weights."""
    steady: list[list[list[FoundObjects]]] = [[] for _ in cases]
    yield network, steady
    exact = copy.deepcopy(network).double()
    yield exact, steady
    changed = []
    for seed in range(CHANGES):
        other, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(1 + ROUNDING * torch.randn(weight.shape, generator=generator))
        changed.append([_objects(other.detect(case.batch, config.model.detect), config, case) for case in cases])
    yield exact, [list(of_case) for of_case in zip(*changed, strict=True)]


def _objects(found: Detections, config: Config, case: CheckedBatch) -> list[FoundObjects]:
    """What PyTorch has found in each image. The graph maps boxes as predict.images.boxes_to_original does."""
    roi_trim, scale = config.conventions.boxes.roi_trim, torch.from_numpy(case.scale_xy)[:, None]
    boxes = trim(trim(found.boxes, roi_trim) * scale.repeat(1, 1, 2), -roi_trim)
    boxes = clip(boxes, whole_images(torch.from_numpy(case.original_hw)))
    parts = (part.numpy() for part in (boxes, found.scores, found.labels))
    return [FoundObjects(*of_image) for of_image in zip(*parts, strict=True)]


def _batches(config: Config) -> Iterator[CheckedBatch]:
    """Batches of several sizes, the later images in a batch smaller. The originals are twice as large."""
    rng = np.random.default_rng(0)
    unit = math.lcm(32, config.image.divisor)
    for images, rows, columns in BATCHES:
        height, width = unit * rows, unit * columns
        sizes = np.array([[height - 11 * i, width - 7 * i] for i in range(images)])
        pixels = np.stack([_picture(rng, height, width, config) for _ in range(images)])
        for image, (bottom, right) in zip(pixels, sizes, strict=True):
            image[:, bottom:] = image[:, :, right:] = 0
        tensor = torch.from_numpy(pixels.astype(np.float32) if config.float_pixels else pixels)
        batch = ImageBatch(tensor, (hw := torch.from_numpy(sizes)), whole_images(hw), ())
        original, scale = 2 * sizes, np.full(sizes.shape, 2, np.float32)
        given = {"pixels": tensor.numpy(), "sizes_hw": sizes, "original_hw": original, "scale_xy": scale}
        yield CheckedBatch(batch, original, scale, given)


def _resized(config: Config) -> Iterator[CheckedBatch]:
    """Images of several sizes, one of which shrinks."""
    rng = np.random.default_rng(0)
    for height, width in ((170, 230), (90, 60), (config.image.short_side * 2, config.image.short_side * 2 + 1)):
        image = np.ascontiguousarray(_picture(rng, height, width, config).transpose(1, 2, 0))
        batch = preprocess([image], config)
        scale = (1 / batch.frames[0].scale_xy).astype(np.float32)
        yield CheckedBatch(batch, np.array([[height, width]]), scale[None], {"image": image})


def _picture(rng: np.random.Generator, height: int, width: int, config: Config) -> np.ndarray:
    """Rectangles on a ground with contrast at all scales, as photographs have it, (C, H, W) uint8."""
    channels = len(config.image.statistics[0])
    image = np.full((channels, height, width), 90.0)
    for cell, contrast in ((64, 40), (16, 20), (4, 10), (1, 5)):
        coarse = rng.normal(0, contrast, (channels, height // cell + 2, width // cell + 2)).astype(np.float32)
        ground = F.interpolate(torch.from_numpy(coarse)[None], scale_factor=cell, mode="bilinear")[0]
        image += ground[:, :height, :width].numpy()
    for _ in range(6):
        y, x = rng.integers(0, height - 16), rng.integers(0, width - 16)
        h, w = rng.integers(16, 100, 2)
        image[:, y : y + h, x : x + w] += rng.integers(-80, 160, (channels, 1, 1))
    return image.clip(0, 255).astype(np.uint8)


def _compare(
    run: Callable[[Arrays], Arrays],
    network: MaskRCNN,
    config: Config,
    case: CheckedBatch,
    rounded: Sequence[Sequence[FoundObjects]],
) -> Exactness:
    settings = config.model.detect
    expected = network.detect(case.batch, settings)
    found = run(case.given)
    worst, objects, moved = [0.0, 0.0, 0.0], 0, list[float]()
    for number, theirs in enumerate(_objects(expected, config, case)):
        ours = FoundObjects(found["boxes"][number], found["scores"][number], found["labels"][number])
        others = [of_images[number] for of_images in rounded]
        pairs = np.array(pairs_of(ours, theirs, settings.score_threshold, others), np.int64).reshape(-1, 2)
        mine, other = pairs.T
        objects += len(pairs)
        gaps = [ours.boxes[mine] - theirs.boxes[other], ours.scores[mine] - theirs.scores[other]]
        if expected.mask_probs is not None:
            gaps.append(found["masks"][number, mine] - expected.mask_probs[number].numpy()[other])
        for place, gap in enumerate(gaps):
            worst[place] = max(worst[place], float(np.abs(gap).max(initial=0)))
        if expected.keypoints is not None:
            points = expected.keypoints[number].numpy()[other]
            scale_to_original = np.append(case.scale_xy[number], np.float32(1))
            moved += _moved(found["keypoints"][number, mine], points * scale_to_original)
    if worst[2] > PROBABILITY:
        raise DifferentError(f"the masks of an exported network differ by {worst[2]:.4f} from PyTorch's; report this")
    share = float(np.mean(moved or [0.0]))
    if share > MOVED:
        raise DifferentError(f"{share:.1%} of the keypoints of an exported network lie elsewhere; report this")
    iou = _whole_iou(found, config, case.original_hw) if {"runs", "dense"} & found.keys() else 1.0
    if iou < WHOLE_IOU:
        raise DifferentError(
            f"the whole masks of an exported network have an IoU of {iou:.4f} with its masks; report this"
        )
    return Exactness(objects, worst[0], worst[1], worst[2], iou, share)


def _moved(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Whether each of the keypoints (P, K, 3), x, y and score, lies elsewhere.

    Raises:
        DifferentError: the scores differ.
    """
    gap = np.abs(ours[..., 2] - theirs[..., 2]) - SCORE * (1 + np.abs(theirs[..., 2]))  # a score may be a logit
    if gap.max(initial=0) > 0:
        raise DifferentError(f"a keypoint of an exported network has another score, by {gap.max():.4f}; report this")
    moved: list[float] = (np.abs(ours - theirs)[..., :2].max(axis=-1) > BOX_PX).ravel().astype(float).tolist()
    return moved


class FoundObjects(NamedTuple):
    """The objects of one image: boxes (D, 4) in pixels of the original image, scores (D,) and labels (D,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def pairs_of(
    ours: FoundObjects, theirs: FoundObjects, threshold: float, rounded: Sequence[FoundObjects] = ()
) -> list[tuple[int, int]]:
    """The numbers of the detections of both sides that are the same object. Equal scores may be in another order.

    Args:
        rounded: what PyTorch finds in the image after changes of its weights as small as rounding. An object that it
            then loses may be missing, and one that it then finds may be there.

    Raises:
        DifferentError: a detection has no partner, and rounding does not explain it.
    """
    close = _alike(ours, theirs) & (_gaps(ours, theirs) <= BOX_PX)
    full = (theirs.scores > 0).all()
    lowest = max(threshold, float(theirs.scores.min(initial=1.0)) if full else 0.0) + SCORE
    pairs: list[tuple[int, int]] = []
    for slot in np.flatnonzero(theirs.scores > 0):
        partners = np.flatnonzero(close[:, slot])
        if len(partners):
            pairs.append((int(partners[0]), int(slot)))
            close[partners[0]] = False
    for side, other, names in ((theirs, ours, [b for _, b in pairs]), (ours, theirs, [a for a, _ in pairs])):
        alone = np.setdiff1d(np.flatnonzero(side.scores > lowest), names)
        alone = alone[~_ties(side, other)[alone]]
        for third in rounded:
            alone = alone[_finds(third, side)[alone] == (side is theirs)]
        if len(alone):
            who = "lacks" if side is theirs else "finds and PyTorch lacks"
            raise DifferentError(
                f"an exported network {who} {len(alone)} objects, the first with score {side.scores[alone[0]]:.4f} at "
                f"{side.boxes[alone[0]].round(2).tolist()}; report this"
            )
    return pairs


def _finds(side: FoundObjects, other: FoundObjects) -> np.ndarray:
    """(D,) bool: whether one side has each object of the other."""
    return np.any(_alike(side, other) & (_gaps(side, other) <= BOX_PX), axis=0)


def _gaps(ours: FoundObjects, theirs: FoundObjects) -> np.ndarray:
    """(D, D), the largest difference of an edge of each pair, in pixels."""
    gaps: np.ndarray = np.abs(ours.boxes[:, None] - theirs.boxes).max(axis=2)
    return gaps


def _alike(ours: FoundObjects, theirs: FoundObjects) -> np.ndarray:
    """(D, D) bool: the pairs of one label whose scores differ by up to `SCORE`."""
    filled = (ours.scores[:, None] > 0) & (theirs.scores > 0)
    scores = np.abs(ours.scores[:, None] - theirs.scores) <= SCORE
    return filled & scores & (ours.labels[:, None] == theirs.labels)


def _ties(side: FoundObjects, other: FoundObjects) -> np.ndarray:
    """(D,) bool: the objects of one side for which the other may have kept another box. Of two overlapping boxes with
    scores that are equal but for rounding, either one may suppress the other."""
    iou = pairwise_iou(torch.from_numpy(side.boxes), torch.from_numpy(other.boxes)).numpy()
    return np.any(_alike(side, other) & (iou >= TIE_IOU), axis=1)


def _whole_iou(found: Arrays, config: Config, original: np.ndarray) -> float:
    """IoU of the whole masks of the graph and of the masks that `predict.images.paste` makes, over all pixels."""
    both = either = done = 0
    for number, (height, width) in enumerate(original.tolist()):
        kept = np.flatnonzero(found["scores"][number] > 0)
        masks = paste(found["masks"][number][kept], found["boxes"][number][kept], (height, width), config)
        if "dense" in found:
            whole = [RLE.from_dense(mask[:height, :width]) for mask in found["dense"][done : done + len(kept)]]
            drawn = spans_of(Masks(whole, (height, width)), kept)
            done += len(kept)
        else:
            drawn = drawn_spans(found["runs"], number, (height, width))
        pasted = spans_of(masks, kept)
        missing, more = pixels_outside(pasted, drawn), pixels_outside(drawn, pasted)
        common = int((drawn[:, 1] - drawn[:, 0]).sum()) - more
        both, either = both + common, either + common + missing + more
    return both / either if either else 1.0


def spans_of(masks: Masks, slots: np.ndarray) -> np.ndarray:
    """(K, 2) int64, start and stop of each run of the masks, counted down the columns of all images of all slots.

    Args:
        slots: (N,) int64, the slot of each mask.
    """
    each = [
        np.stack(spans_from_runs(decode_runs(mask.counts)), 1) + slot * mask.size[0] * mask.size[1]
        for slot, mask in zip(slots.tolist(), masks, strict=True)
    ]
    return np.concatenate([np.zeros((0, 2), np.int64), *each])


def drawn_spans(runs: np.ndarray, image: int, hw: tuple[int, int]) -> np.ndarray:
    """The `runs` (K, 4) of a graph for one image, in the form of `spans_of`."""
    own = runs[runs[:, 0] == image]
    spans: np.ndarray = own[:, 2:] + own[:, 1:2] * (hw[0] * hw[1])
    return spans


def pixels_outside(inner: np.ndarray, outer: np.ndarray) -> int:
    """The number of pixels of runs (K, 2), start and stop, that other runs lack. Runs of one side do not overlap."""
    ends = np.concatenate([inner.ravel(), outer.ravel()])
    change = np.zeros((len(ends), 2), np.int64)
    change[: inner.size : 2, 0], change[1 : inner.size : 2, 0] = 1, -1
    change[inner.size :: 2, 1], change[inner.size + 1 :: 2, 1] = 1, -1
    order = np.argsort(ends, kind="stable")
    inside = np.cumsum(change[order], axis=0)[:-1]
    lengths = np.diff(ends[order])
    return int(lengths[(inside[:, 0] > 0) & (inside[:, 1] == 0)].sum())
