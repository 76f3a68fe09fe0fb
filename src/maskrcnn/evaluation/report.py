"""A report as plain text of at most 80 columns, for people and for pasting into an issue."""

from __future__ import annotations

from rich.text import Text

from maskrcnn.evaluation.coco import Report, digits
from maskrcnn.evaluation.matching import IOUS
from maskrcnn.evaluation.oks import DEFAULT_SIGMA

_CLASSES_SHOWN = 30  # with more classes, their APs are only in the output of --json


def table(report: Report) -> Text:
    """One row each for masks, boxes and keypoints, the AP of each class if there are several, and the totals.

    It is a rich `Text`, so that rich does not read brackets in names and paths as markup. `str()` gives plain text.
    """
    kinds = report.figures
    lines: list[str] = []
    for group in (("masks", "boxes"), ("keypoints",)):  # keypoints have other figures
        rows = {kind: kinds[kind] for kind in group if kind in kinds}
        if rows:
            names, width = list(next(iter(rows.values()))), max(6, *map(len, rows))
            lines += [""] * bool(lines) + [" " * width + "".join(f"{name:>6}" for name in names)]
            lines += [
                f"{kind:{width}}" + "".join(f"{digits(f[name]):>6}" for name in names) for kind, f in rows.items()
            ]
    of_groups = {
        name: {kind: (group.figures.get(kind) or {}).get("AP") for kind in kinds}
        for name, group in report.groups.items()
    }
    of_classes = report.per_class if 1 < len(report.per_class) <= _CLASSES_SHOWN else {}
    columns = {kind: max(7, len(kind) + 2) for kind in kinds}
    for title, aps in (("AP of class", of_classes), ("AP of group", of_groups)):
        if not aps:
            continue
        width = max(len(name) for name in (title, *aps))
        lines += ["", f"{title:{width}}" + "".join(f"{kind:>{column}}" for kind, column in columns.items())]
        for name, by_kind in aps.items():
            lines.append(f"{name:{width}}" + "".join(f"{digits(by_kind[kind]):>{w}}" for kind, w in columns.items()))
    if report.matching is not None:
        lines += ["", f"matching score of detections from {report.matching.min_score:g}, by IoU"]
        lines += _matching_scores(report)
    lines += [
        "",
        f"{report.images} images, {report.objects} objects, {report.detections} detections, "
        f"at most {report.max_detections} per image",
    ]
    for name, sigmas in report.oks_sigmas.items():
        if set(sigmas) == {DEFAULT_SIGMA}:
            lines.append(f"OKS of {name}: assumed a standard deviation of {DEFAULT_SIGMA} for each keypoint")
    lines += report.notes
    if report.skipped:
        lines.append(f"{len(report.skipped)} entries of the ground truth left out, first: {report.skipped[0]}")
    return Text("\n".join(lines))


def _matching_scores(report: Report) -> list[str]:
    """A row for each group and one for all images, with a column for each IoU."""
    of_groups = {name: group.matching for name, group in report.groups.items()}
    width = max(8, *map(len, of_groups)) if of_groups else 8
    return [" " * width + "".join(f"{iou:>6}" for iou in IOUS)] + [
        f"{name:{width}}" + "".join(f"{digits(score):>6}" for score in matching.scores)
        for name, matching in (*of_groups.items(), ("images", report.matching))
        if matching is not None
    ]
