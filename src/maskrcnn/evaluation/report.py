"""A report as plain text of at most 80 columns, for people and for pasting into an issue."""

from __future__ import annotations

from rich.text import Text

from maskrcnn.evaluation.coco import Report, digits

_CLASSES_SHOWN = 30  # more are for --json


def table(report: Report) -> Text:
    """A row each for masks and boxes, the AP of each class where there are several, and what was compared.

    A rich `Text`, so that brackets in names and paths are not taken for markup; `str()` gives the plain text.
    """
    kinds = [(kind, f) for kind, f in (("masks", report.masks), ("boxes", report.boxes)) if f is not None]
    lines = ["      " + "".join(f"{name:>6}" for name in report.boxes)]
    lines += [f"{kind:6}" + "".join(f"{digits(figures[name]):>6}" for name in report.boxes) for kind, figures in kinds]
    of_groups = {
        name: {"masks": (group.masks or {}).get("AP"), "boxes": group.boxes["AP"]}
        for name, group in report.groups.items()
    }
    of_classes = report.per_class if 1 < len(report.per_class) <= _CLASSES_SHOWN else {}
    for title, rows in (("AP of class", of_classes), ("AP of group", of_groups)):
        if not rows:
            continue
        width = max(len(name) for name in (title, *rows))
        lines += ["", f"{title:{width}}" + "".join(f"{kind:>7}" for kind, _ in kinds)]
        for name, by_kind in rows.items():
            lines.append(f"{name:{width}}" + "".join(f"{digits(by_kind[kind]):>7}" for kind, _ in kinds))
    lines += [
        "",
        f"{report.images} images, {report.objects} objects, {report.detections} detections, "
        f"at most {report.max_detections} an image",
    ]
    if report.skipped:
        lines.append(f"{len(report.skipped)} entries of the ground truth left out, first: {report.skipped[0]}")
    return Text("\n".join(lines))
