"""Pictures: objects drawn on their image, truth beside prediction, and the curves of a run.

Pillow draws everything, masks each inside its own crop. supervision would take image-sized masks (3.6 GB for 300
objects on 12 megapixels) and, without OpenCV, 8 s for 300 boxes.

Legend: H, W of the image, N objects drawn, E the enlargement of a picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.structures.atomic import atomic_write
from maskrcnn.structures.detections import Instances
from maskrcnn.structures.masks import RLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image, ImageFont

Colour = tuple[int, int, int]
ColourBy = Literal["auto", "class", "instance"]

# Neighbours in the list differ in hue and in lightness; all of them show on dark and on light images.
_PALETTE: tuple[Colour, ...] = (
    (255, 77, 109),
    (46, 196, 182),
    (255, 183, 3),
    (67, 97, 238),
    (144, 190, 40),
    (181, 58, 221),
    (251, 133, 0),
    (0, 166, 214),
    (240, 98, 192),
    (35, 140, 74),
    (199, 125, 255),
    (214, 64, 36),
)
_INK, _PAPER = (24, 24, 27), (255, 255, 255)
_FILL, _OUTLINE = 0.4, 0.95  # opacities of a mask
# Of the picture may lie under labels, with and without names; beyond that, objects not twice their size have none.
_MOST_LABELLED, _MOST_SCORED = 0.15, 0.04
_TILE = (320, 800)  # pixels of a contact sheet's images: the short side at least, the long side at most
_TRUTH_SIMILAR = 0.3  # box IoU from which a found object takes the colour of an annotated one


def draw(
    image: np.ndarray,
    instances: Instances,
    *,
    min_score: float = 0.5,
    enlarge: int = 1,
    colour_by: ColourBy = "auto",
) -> np.ndarray:
    """Masks, boxes, names and scores on a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: objects of that image; scores of 1, the ground truth, are not written out.
        min_score: objects below it are left out.
        enlarge: whole factor E of the picture, so that labels on small images can be read.
        colour_by: `auto` is by instance where all objects are of one class, so that touching ones can be told
            apart, else by class.

    Returns:
        (E * H, E * W, 3) uint8 RGB.

    Raises:
        DataError: the objects are of an image of another size.
    """
    shown = np.flatnonzero(np.asarray(instances.scores) >= min_score)
    by_class = colour_by == "class" or (colour_by == "auto" and len(np.unique(instances.labels[shown])) > 1)
    colours = np.asarray(instances.labels) if by_class else np.arange(len(instances))
    return np.array(_draw(image, instances, shown, colours, enlarge))


def contact_sheet(
    rows: Sequence[tuple[np.ndarray, Instances, Instances]], *, columns: int = 2, min_score: float = 0.5
) -> np.ndarray:
    """Pairs of pictures, truth at the left and prediction at the right, with captions. Small images are enlarged,
    large ones shrunk.

    Args:
        rows: image (H, W, 3) uint8 RGB, its annotated objects, the objects found.
        columns: pairs side by side.
        min_score: found objects below it are left out.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: no pairs, or objects of an image of another size.
    """
    from PIL import Image, ImageDraw

    if not rows:
        raise DataError("contact sheet: expected one or more images, found none")
    columns = min(columns, len(rows))
    several_classes = len({int(label) for _, *both in rows for one in both for label in one.labels}) > 1
    pairs = []
    for image, truth, found in rows:
        enlarge = math.ceil(_TILE[0] / min(image.shape[:2]))
        shrink = max(1.0, enlarge * max(image.shape[:2]) / _TILE[1])
        shown = np.flatnonzero(found.scores >= min_score)
        if several_classes:
            colours = np.asarray(truth.labels), np.asarray(found.labels)
        else:
            colours = np.arange(len(truth)), _colours_of_truth(truth.boxes, found.boxes)
        left = _draw(image, truth, np.arange(len(truth)), colours[0], enlarge, shrink)
        right = _draw(image, found, shown, colours[1], enlarge, shrink)
        if shrink > 1:
            left.thumbnail((_TILE[1], _TILE[1]))
            right.thumbnail((_TILE[1], _TILE[1]))
        pairs.append((left, right, len(truth), len(shown)))

    gap, between, font = 14, 4, _font(15)
    caption = 26
    wide = max(left.width for left, *_ in pairs)
    heights = [max(left.height for left, *_ in pairs[i : i + columns]) for i in range(0, len(pairs), columns)]
    pair_width = 2 * wide + between
    sheet = Image.new(
        "RGB",
        (columns * (pair_width + 2 * gap), sum(heights) + len(heights) * (caption + gap) + gap // 2),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    y = gap // 2
    for i, (left, right, annotated, number) in enumerate(pairs):
        row, column = divmod(i, columns)
        x = gap + column * (pair_width + 2 * gap)
        for picture, start, text in (
            (left, x, f"truth: {_objects(annotated)}"),
            (right, x + left.width + between, f"found: {_objects(number)}"),
        ):
            pen.text((start, y + caption // 2), text, fill=_INK, font=font, anchor="lm")
            sheet.paste(picture, (start, y + caption))
        if column == columns - 1:
            y += heights[row] + caption + gap
    return np.array(sheet)


def curves(metrics: Path, out: Path) -> None:
    """The losses, the learning rate and the validation AP of a run as a PNG.

    Args:
        metrics: the run's JSON lines. A line cut off, the last one of a killed run, is passed over.
        out: the picture.

    Raises:
        DataError: the file cannot be read or holds no training step.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _read_lines(metrics)
    steps = [line for line in lines if "loss" in line]
    if not steps:
        raise DataError(f"{metrics}: expected lines with step and loss, found none among {len(lines)}")
    evaluations = [line for line in lines if "boxes" in line]
    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(11.0 if evaluations else 6.5, 5.0), layout="constrained")
        FigureCanvasAgg(figure)  # no window, whatever the user's settings
        grid = figure.add_gridspec(2, 2 if evaluations else 1, height_ratios=(3, 1))
        losses = figure.add_subplot(grid[0, 0])
        _plot_losses(losses, steps)
        rate = figure.add_subplot(grid[1, 0], sharex=losses)
        rates = [line for line in steps if line.get("lr") is not None]
        rate.plot([line["step"] for line in rates], [line["lr"] for line in rates], color="#6b7280")
        rate.set(xlabel="step", ylabel="learning rate")
        rate.set_ylim(bottom=0)
        if evaluations:
            _plot_scores(figure.add_subplot(grid[:, 1]), evaluations)
        with atomic_write(out) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _draw(
    image: np.ndarray,
    instances: Instances,
    shown: np.ndarray,
    colours: np.ndarray,
    enlarge: int,
    shrink: float = 1.0,
) -> Image.Image:
    """Draws the objects `shown`, positions in `instances`.

    Args:
        colours: a number for every instance.
        shrink: lines and words are made larger for a picture that will be shrunk by this factor.
    """
    from PIL import Image, ImageDraw

    if tuple(instances.image_hw) != image.shape[:2]:
        raise DataError(
            f"expected objects of an image of height, width {image.shape[:2]}, found some of {instances.image_hw}"
        )
    canvas = Image.fromarray(image)
    if enlarge > 1:
        canvas = canvas.resize((canvas.width * enlarge, canvas.height * enlarge), Image.Resampling.BICUBIC)
    if len(shown) == 0:
        return canvas
    thickness = max(1, round(min(canvas.size) / 400), round(shrink))
    paint = {int(i): _PALETTE[int(colours[i]) % len(_PALETTE)] for i in shown}
    if instances.masks is not None:
        areas = {i: instances.masks[i].area for i in paint}
        for i in sorted(paint, key=areas.__getitem__, reverse=True):  # small objects on top of large ones
            _blend(canvas, instances.masks[i], paint[i], thickness, enlarge)
    boxes = np.asarray(instances.boxes, dtype=np.float64) * enlarge
    pen = ImageDraw.Draw(canvas)
    for i in paint:
        x1, y1, x2, y2 = boxes[i].round().astype(int).tolist()
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # pillow's far corner is the last pixel inside
        pen.rectangle(edges, outline=paint[i], width=thickness)
    _draw_labels(canvas, boxes, instances, paint, _font(round(max(11 * shrink, min(40, min(canvas.size) / 40)))))
    return canvas


def _blend(canvas: Image.Image, mask: RLE, colour: Colour, width: int, enlarge: int) -> None:
    """Fills a mask and outlines it on the inside, `width` pixels wide."""
    from PIL import Image

    bitmap, (x, y) = mask.crop()
    if bitmap.size == 0:
        return
    if enlarge > 1:  # smooth between the pixels of the mask; the margin keeps its rim whole
        padded = Image.fromarray(np.pad(bitmap, 1) * np.uint8(255))
        smooth = padded.resize((padded.width * enlarge, padded.height * enlarge), Image.Resampling.BILINEAR)
        bitmap = (np.asarray(smooth)[enlarge:-enlarge, enlarge:-enlarge] >= 128).astype(np.uint8)
    inner = np.pad(bitmap, width)
    for _ in range(width):  # each round takes the rim off and one row of the margin
        core = inner[1:-1, 1:-1].copy()
        for neighbour in (inner[:-2, 1:-1], inner[2:, 1:-1], inner[1:-1, :-2], inner[1:-1, 2:]):
            core &= neighbour
        inner = core
    alpha = bitmap * np.uint8(255 * _OUTLINE) - inner * np.uint8(255 * _OUTLINE - 255 * _FILL)
    canvas.paste(colour, (x * enlarge, y * enlarge), Image.fromarray(alpha))


def _draw_labels(
    canvas: Image.Image,
    boxes: np.ndarray,
    instances: Instances,
    paint: dict[int, Colour],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Names and scores, the best score first, each where it hides fewest of the labels already there."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    pad = max(2, int(font.size) // 5)
    ascent, descent = font.getmetrics()
    # With one class and many objects the name says nothing new.
    named = len(paint) <= 12 or len({int(instances.labels[i]) for i in paint}) > 1
    budget = _MOST_LABELLED if named else _MOST_SCORED
    texts = {i: text for i in paint if (text := _text(instances, i, named))}
    sizes = {i: (round(font.getlength(text)) + 2 * pad, ascent + descent + pad // 2) for i, text in texts.items()}
    if sum(w * h for w, h in sizes.values()) > budget * canvas.width * canvas.height:
        room = {i: (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1]) for i in texts}
        texts = {i: text for i, text in texts.items() if sizes[i][0] * sizes[i][1] < 0.5 * room[i]}
    placed = np.zeros((0, 4))
    for i in sorted(texts, key=lambda i: -float(instances.scores[i])):
        spot = _spot(boxes[i], sizes[i], placed, canvas.size)
        placed = np.concatenate([placed, spot[None]])
        x1, y1, x2, y2 = spot.astype(int).tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paint[i])
        light = 0.299 * paint[i][0] + 0.587 * paint[i][1] + 0.114 * paint[i][2] > 140
        pen.text((x1 + pad, y1 + pad // 4), texts[i], fill=_INK if light else _PAPER, font=font)


def _spot(box: np.ndarray, size: tuple[int, int], placed: np.ndarray, canvas_wh: tuple[int, int]) -> np.ndarray:
    """(4,) where a label goes: above its box, inside it, below, the first place that is free."""
    (w, h), (x1, y1, x2, y2) = size, box.round()
    inside = [(x1, y1), (x2 - w, y1), (x1, y2 - h), ((x1 + x2 - w) // 2, (y1 + y2 - h) // 2)]
    corners = np.array(
        [(x1, y1 - h), inside[0], (x2 - w, y1 - h), *inside[1:], (x1, y2), (x1, y2 + h), (x1, y1 - 2 * h)]
    )
    corners = np.clip(corners, 0, np.maximum(0, np.array(canvas_wh) - size))
    spots = np.concatenate([corners, corners + size], axis=1)
    low = np.maximum(spots[:, None, :2], placed[None, :, :2])
    high = np.minimum(spots[:, None, 2:], placed[None, :, 2:])
    hidden = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    best: np.ndarray = spots[int(np.argmin(hidden))]
    return best


def _text(instances: Instances, index: int, named: bool) -> str:
    score = float(instances.scores[index])
    words = [instances.names[index] if instances.names else f"class {int(instances.labels[index])}"] if named else []
    return " ".join(words + ([f"{score:.2f}"] if score < 1 else []))


def _colours_of_truth(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(F,) for found boxes the position of the most similar of T annotated ones, or a number after theirs."""
    numbers = len(truth) + np.arange(len(found))
    if len(truth) == 0 or len(found) == 0:
        return numbers
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, truth)]
    iou = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)
    return np.where(iou.max(axis=1) >= _TRUTH_SIMILAR, iou.argmax(axis=1), numbers)


def _objects(number: int) -> str:
    return "1 object" if number == 1 else f"{number} objects"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows most alphabets; matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: expected the metrics of a run, cannot be read ({error.strerror})") from None
    lines = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            lines.append(entry)
    return lines


def _plot_losses(axes: Axes, steps: list[dict[str, Any]]) -> None:
    """Every loss: as measured, faint, and smoothed."""
    names = ["loss", *dict.fromkeys(name for line in steps for name in line if name.startswith("loss_"))]
    colours = ["#18181b", *(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in _PALETTE)]
    for name, colour in zip(names, colours, strict=False):
        rows = [line for line in steps if line.get(name) is not None]
        x, values = [line["step"] for line in rows], np.array([line[name] for line in rows], dtype=np.float64)
        smooth = _smoothed(values, span=len(values) // 25)
        label = "sum" if name == "loss" else name.removeprefix("loss_").replace("_", " ")
        axes.plot(x, values, color=colour, alpha=0.22, linewidth=0.8)
        axes.plot(
            x,
            smooth,
            color=colour,
            linewidth=1.6,
            label=f"{label}  {smooth[-1]:.3f}",
            marker="." if len(x) == 1 else "",
        )
    axes.set(title="Training losses")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, ncols=2)
    axes.tick_params(labelbottom=False)


def _plot_scores(axes: Axes, evaluations: list[dict[str, Any]]) -> None:
    kinds = [("masks", "#ff4d6d"), ("boxes", "#4361ee")]
    for kind, colour in kinds:
        for name, dashes in (("AP", "-"), ("AP50", ":")):
            rows = [
                (line["step"], line[kind][name]) for line in evaluations if (line.get(kind) or {}).get(name) is not None
            ]
            if not rows:
                continue
            x, y = zip(*rows, strict=True)
            label = f"{kind.removesuffix('s').replace('boxe', 'box')} {name}  {y[-1]:.3f}"
            axes.plot(x, y, dashes, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=label)
    axes.set(title="Validation", xlabel="step", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)


def _smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """The mean of each value and up to `span` neighbours at either side."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    starts, ends = np.maximum(0, places - span), np.minimum(len(values), places + span + 1)
    smooth: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth
