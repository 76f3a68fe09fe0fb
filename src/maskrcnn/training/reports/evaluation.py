"""An evaluation as sections of a page: figures, classes, curves, kinds of errors, calibration, and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.evaluation.analysis import ERRORS, IOUS, Analysis
from maskrcnn.evaluation.coco import Report, digits
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.reports.examples import mistakes, random_sample
from maskrcnn.visualise.page import Section, colour, gallery, heading, listing, new_figure, page, paragraph, plot, table

_CLASSES = 10  # with more classes, only their mean is drawn
_MATRIX = 12  # with more classes, the confusions are listed
_WORDS = {
    "Cls": "right place, wrong class",
    "Loc": "right class, IoU of 0.1 to 0.5 with an object",
    "Both": "wrong class and IoU of 0.1 to 0.5",
    "Dupe": "object that was found before with a higher score",
    "Bkg": "background: IoU below 0.1 with every object",
    "Miss": "object that is not found, and is in no other row",
}


def evaluation_page(title: str, dataset: Dataset, report: Report) -> str:
    """The page on one evaluation, as `evaluate --report` writes it.

    Args:
        report: with its analysis.
    """
    return page(title, [paragraph(str(dataset.path), "soft"), paragraph(report.line())], sections(dataset, report))


def sections(dataset: Dataset, report: Report) -> list[Section]:
    """All that is known about an evaluation. Few images are read again for its pictures."""
    found = [Section("Figures", _figures(report))]
    if (analysis := report.analysis) is None:
        return found
    return [
        *found,
        Section("Classes", [_classes(report, analysis)]),
        Section("Precision and recall", [gallery(_precision_recall(analysis), plots=True)]),
        Section(
            "Errors",
            [
                paragraph(
                    f"Of {analysis.kind}, at an IoU of 0.5 (TIDE). AP50 would rise by the last column without them."
                ),
                _errors(analysis),
                heading("Confused classes"),
                *_confusion(analysis),
            ],
        ),
        Section("Scores", _calibration(analysis)),
        *mistakes(dataset, analysis),
        random_sample(dataset, analysis),
    ]


def _figures(report: Report) -> list[str]:
    parts = []
    for group in (("masks", "boxes"), ("keypoints",)):  # keypoints have other figures
        rows = {kind: report.figures[kind] for kind in group if kind in report.figures}
        if rows:
            names = list(next(iter(rows.values())))
            parts.append(table(["", *names], [[kind, *(digits(row[n]) for n in names)] for kind, row in rows.items()]))
    parts.append(
        paragraph(
            f"{report.images} images, {report.objects} objects, {report.detections} detections, at most "
            f"{report.max_detections} in an image. s, m and l are objects below 32, below 96, and from 96 pixels on.",
            "soft",
        )
    )
    if report.groups:
        kinds = list(report.figures)
        rows_of_groups = [
            [name, *(digits((group.figures.get(kind) or {}).get("AP")) for kind in kinds)]
            for name, group in report.groups.items()
        ]
        parts += [heading("AP of groups"), table(["group", *kinds], rows_of_groups)]
    return [*parts, listing(report.notes) if report.notes else ""]


def _classes(report: Report, analysis: Analysis) -> str:
    kinds = list(report.figures)
    rows = []
    for name, best in zip(analysis.names, analysis.thresholds, strict=True):
        of_best = (best.score, best.precision, best.recall, best.f1) if best else (None,) * 4
        rows.append([name, *(digits(report.per_class[name].get(kind)) for kind in kinds), *map(digits, of_best)])
    head = [f"AP of {kind}" for kind in kinds]
    return table(["class", *head, "best threshold", "precision", "recall", "F1"], rows) + paragraph(
        "The best threshold of a class is the score with the highest F1 at an IoU of 0.5. Precision, recall and F1 are "
        "those of the detections from this score on.",
        "soft",
    )


def _precision_recall(analysis: Analysis) -> list[str]:
    recall, plots = np.linspace(0, 1, analysis.precision.shape[1]), []
    for iou, precision in zip(IOUS, analysis.precision, strict=True):
        defined = np.flatnonzero(~np.isnan(precision).any(axis=0))
        figure, axes = new_figure()
        if 1 < len(defined) <= _CLASSES:
            for label in defined.tolist():
                axes.plot(
                    recall, precision[:, label], color=colour(label), linewidth=1.2, label=_plain(analysis, label)
                )
        if len(defined):
            axes.plot(recall, precision[:, defined].mean(axis=1), color="#000000", linewidth=2, label="all classes")
            axes.legend(frameon=False, fontsize=8)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        plots.append(plot(figure, f"Precision and recall at an IoU of {iou:g}"))
    return plots


def _plain(analysis: Analysis, label: int) -> str:
    """A name that matplotlib takes literally: no formulas, and no underscore in front, which hides it."""
    return analysis.names[label].replace("$", r"\$").lstrip("_") or f"class {label + 1}"


def _errors(analysis: Analysis) -> str:
    total = sum(count for count, _ in analysis.errors.values())
    rows = [
        [name, _WORDS[name], count, f"{count / total:.0%}" if total else "-", f"{lost:.3f}"]
        for name, (count, lost) in ((name, analysis.errors[name]) for name in ERRORS)
    ]
    return table(["kind", "", "errors", "share", "AP50 lost"], rows)


def _confusion(analysis: Analysis) -> list[str]:
    names, matrix = [*analysis.names, "background"], analysis.confusion
    words = "Rows are annotated classes and columns are found ones, above the best threshold of each class."
    if len(analysis.names) <= _MATRIX:
        rows = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
        return [paragraph(words, "soft"), table(["", *names], rows)]
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:20]
    pairs = [divmod(place, len(names)) for place in order.tolist()]
    rows = [[names[row], names[column], int(wrong[row, column])] for row, column in pairs if wrong[row, column]]
    return [
        paragraph("The commonest pairs, above the best threshold of each class.", "soft"),
        table(["annotated", "found", "number"], rows),
    ]


def _calibration(analysis: Analysis) -> list[str]:
    figure, axes = new_figure()
    scores, right, counts = zip(*analysis.calibration, strict=True) if analysis.calibration else ((), (), ())
    axes.plot((0, 1), (0, 1), linestyle=":", color="#6b7280")
    axes.plot(scores, right, marker="o", color=colour(0))
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    calibration = plot(figure, f"Calibration; mean error {analysis.calibration_error:.3f}")
    figure, axes = new_figure()
    axes.bar(scores, counts, width=0.08, color=colour(1))
    axes.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    return [
        paragraph("Scores are calibrated if they are the share of detections that are right at an IoU of 0.5."),
        gallery([calibration, plot(figure, "Scores of all detections")], plots=True),
    ]


def thresholds(analysis: Analysis | None) -> Sequence[float | None]:
    """The best threshold of each class, in the order of the categories, as the model file holds them."""
    return [] if analysis is None else [None if best is None else best.score for best in analysis.thresholds]
