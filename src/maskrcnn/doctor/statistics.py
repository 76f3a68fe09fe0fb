"""How many objects a data set has, how large they are, and how they are shared among images and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskrcnn.doctor.diagnosis import Diagnosis
from maskrcnn.visualise.page import colour, new_figure, plot

_SMALL, _LARGE = 32, 96  # pixels: COCO's sides of small and large objects
_MOST_BARS = 40  # in a plot
_MOST_CLASSES = 30  # in a plot


def object_sizes(diagnosis: Diagnosis) -> tuple[np.ndarray, np.ndarray]:
    """The side of a square with the area of each object, in pixels, and width / height of its box; (M,) float64 each.
    The area is that of the mask, or of the box of an object without a mask."""
    measures = diagnosis.measures
    boxes = measures.boxes[~measures.crowd]
    sides = boxes[:, 2:] - boxes[:, :2]
    pixels = measures.pixels[~measures.crowd]
    areas = np.where(np.isfinite(pixels), pixels, sides.prod(axis=1))
    filled = (sides > 0).all(axis=1)
    return np.sqrt(areas[filled]), sides[filled, 0] / sides[filled, 1]


def statistics(diagnosis: Diagnosis) -> dict[str, Any]:
    """The figures of a data set."""
    counts = objects_an_image(diagnosis)
    sides, ratios = object_sizes(diagnosis)
    heights, widths = diagnosis.dataset.records.sizes_hw.T
    sizes, number = np.unique(np.stack([widths, heights], axis=1), axis=0, return_counts=True)
    commonest = np.argsort(-number, kind="stable")[:5]
    return {
        "images_without_objects": int((counts == 0).sum()),
        "objects_an_image": _spread(counts),
        "side": _spread(sides),
        "small": int((sides < _SMALL).sum()),
        "medium": int(((sides >= _SMALL) & (sides < _LARGE)).sum()),
        "large": int((sides >= _LARGE).sum()),
        "width_by_height": _spread(ratios),
        "image_sizes": {f"{sizes[i, 0]} x {sizes[i, 1]}": int(number[i]) for i in commonest},
        "different_image_sizes": len(sizes),
    }


def objects_an_image(diagnosis: Diagnosis) -> np.ndarray:
    """(N,) int64, the objects of each image, without crowd regions."""
    measures = diagnosis.measures
    return np.bincount(measures.images[~measures.crowd], minlength=len(diagnosis.dataset))


def _spread(values: np.ndarray) -> dict[str, float]:
    """Smallest, largest and mean value, and percentiles; NaN without values."""
    if not len(values):
        return dict.fromkeys(("min", "p5", "median", "mean", "p95", "max"), float("nan"))
    low, middle, high = np.percentile(values, [5, 50, 95]).tolist()
    return {
        "min": float(values.min()),
        "p5": low,
        "median": middle,
        "mean": float(values.mean()),
        "p95": high,
        "max": float(values.max()),
    }


def plots(diagnosis: Diagnosis) -> list[str]:
    """Objects an image, sizes, aspect ratios and classes, each as a piece of HTML."""
    sides, ratios = object_sizes(diagnosis)
    counts = objects_an_image(diagnosis)
    names = [category.name for category in diagnosis.dataset.categories]
    edges = (
        np.arange(counts.max(initial=0) + 2) - 0.5 if counts.max(initial=0) < 40 else np.histogram_bin_edges(counts, 40)
    )
    drawn = [_histogram(counts, edges, "objects in an image", "images", 0)]
    if len(sides):
        drawn.append(_histogram(sides, _powers(sides), "side of an object: root of its area, pixels", "objects", 1))
        drawn.append(_histogram(ratios, _powers(ratios), "width / height of the box", "objects", 2))
    return [*drawn, _bars(dict(zip(names, diagnosis.objects_by_class, strict=True)))]


def _powers(values: np.ndarray) -> np.ndarray:
    """Edges of 30 bins of one ratio."""
    low, high = np.log(np.maximum(values.min(), 0.01)), np.log(np.maximum(values.max(), 0.02))
    edges: np.ndarray = np.exp(np.linspace(low - 0.01, high + 0.01, 31))
    return edges


def _histogram(values: np.ndarray, edges: np.ndarray, what: str, of: str, number: int) -> str:
    figure, axes = new_figure()
    axes.hist(values, bins=edges.tolist(), color=colour(number))
    if edges[0] > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.set(xlabel=what, ylabel=of)
    return plot(figure, f"{of.capitalize()} by {what}")


def _bars(counts: Mapping[str, int]) -> str:
    """Objects of the commonest classes, as horizontal bars."""
    commonest = sorted(counts.items(), key=lambda item: -item[1])[:_MOST_CLASSES]
    names = [name if len(name) <= 24 else f"{name[:22]}..." for name, _ in commonest]
    figure, axes = new_figure(height=max(1.2, 0.5 + 0.22 * len(names)))
    axes.barh(range(len(names)), [count for _, count in commonest], color=colour(3))
    axes.set_yticks(range(len(names)), [name.replace("$", r"\\$") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="objects")
    left = len(counts) - len(commonest)
    return plot(figure, "Objects of each class" + (f", without the {left} rarest classes" if left else ""))
