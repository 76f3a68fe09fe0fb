"""`maskrcnn evaluate`: COCO AP and AR of a model on a data set, or of any results JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskrcnn.cli.detectors import Overlap, TileSize, Tta, with_views_and_tiles
from maskrcnn.cli.flags import Flag, Flags, HelpAll, changed_fields, parse_flags, short_help
from maskrcnn.cli.opening import Computing, Opening
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from maskrcnn.evaluation.coco import Report
    from maskrcnn.structures.dataset import Dataset

# Flags for which --results has no use, besides those of `Opening` and `Computing`.
_OF_MODEL = {"--images", "--results-out", "--batch-size", "--tta", "--tiles", "--overlap"}


@dataclass(frozen=True)
class Evaluate:
    """COCO AP and AR of a model (--model), or of a COCO results JSON (--results)."""

    data: Path
    """Ground truth: annotations of any format, or the folder that holds them."""
    images: Path | None = None
    """With --model or --report: folder of the images; default: they are searched for beside the annotations."""
    hints: HintFlags = NO_HINTS
    model: str | None = None
    """Model file, checkpoint of another framework, URL, or a name in `maskrcnn weights list`."""
    opening: Annotated[Opening, Flags] = field(default_factory=Opening)
    results: Path | None = None
    """COCO results JSON of any detector."""
    max_detections: int | None = None
    """Detections that count in each image, at most; default: the limit of the model, or 100 with --results."""
    results_out: Path | None = None
    """With --model: also write the predictions as COCO results JSON."""
    limit: int | None = None
    """Judge only the first images of --data, up to this many."""
    group_by: str | None = None
    """Also give AP for each value of this field of the images in --data, for example `modality`."""
    matching: Flag = False
    """Also give TP / (TP + FP + FN) of the masks at IoUs of 0.5 to 0.9, the measure of cell segmentation."""
    min_score: float = 0.5
    """With --matching: the lowest score of detections that count."""
    batch_size: int = 1
    """With --model: images that pass through the network together, which helps on a GPU."""
    tta: Tta = False
    tiles: TileSize = None
    overlap: Overlap = None
    computing: Annotated[Computing, Flags] = field(default_factory=Computing)
    strict: Flag = False
    """Refuse broken images and annotations instead of skipping them."""
    report: Path | None = None
    """Write a page with curves, kinds of errors, the best score thresholds and pictures to this HTML file."""
    json: Flag = False
    """Print one JSON object on stdout."""
    help_all: HelpAll = False

    def run(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json, save_page
        from maskrcnn.files.atomic import check_file

        if not self.matching and self.min_score != type(self).min_score:
            raise ConfigError("--min-score belongs to --matching, which is missing")
        if (self.model is None) == (self.results is None):
            found = "both" if self.model else "neither"
            raise ConfigError(f"evaluate needs either --model or --results, found {found}")
        if self.report is not None:
            check_file(self.report, self.data, self.model, self.results)
            if self.results_out is not None and self.results_out.resolve() == self.report.resolve():
                raise ConfigError(f"expected two files, found {self.report} with both --results-out and --report")
        dataset, report = self._of_results() if self.model is None else self._of_model(self.model)
        if self.report is not None:
            from maskrcnn.training.reports.evaluation import evaluation_page

            save_page(self.report, evaluation_page(f"Evaluation of {self.model or self.results}", dataset, report))
        if self.json:
            print_json(report.to_dict())
        else:
            from maskrcnn.evaluation.report import table

            console(stderr=False).print(table(report))
        if report.undefined is None and self.results is not None and not report.detections:
            return fail(f"{self.results}: expected results to judge, found none for the images of {self.data}")
        return 0 if report.undefined is None else fail(report.undefined)

    def _of_model(self, source: str) -> tuple[Dataset, Report]:
        from maskrcnn.cli.output import console
        from maskrcnn.files.atomic import check_file
        from maskrcnn.files.progress import track
        from maskrcnn.structures.classes import match_categories
        from maskrcnn.training.evaluate import evaluate

        if self.results_out is not None:  # before the model is opened, which takes a while
            check_file(self.results_out, source, self.data)
        model = self.opening.load(source, self.computing)
        dataset = open_dataset(self.data, self.hints, self.images, strict=self.strict)
        for line in self.computing.choice(model):
            console(stderr=True).print(line)
        report = evaluate(
            with_views_and_tiles(model, self.tta, self.tiles, self.overlap),
            dataset,
            max_detections=self.max_detections,
            results_out=self.results_out,
            limit=self.limit,
            strict=self.strict,
            group_by=self.group_by,
            matching=self.min_score if self.matching else None,
            analysis=self.report is not None,
            batch_size=self.batch_size,
            track=lambda items, total: track(items, "evaluate", total),
        )
        return match_categories(model.config.categories, dataset), report  # the labels of the detections

    def _of_results(self) -> tuple[Dataset, Report]:
        from maskrcnn.data.formats import read_dataset
        from maskrcnn.evaluation.coco import evaluate_results
        from maskrcnn.training.evaluate import first_images

        assert self.results is not None
        of_model = _OF_MODEL if self.report is None else _OF_MODEL - {"--images"}  # the page shows images
        idle = [flag for flag in changed_fields(self) if flag in of_model]
        idle += changed_fields(self.opening) + changed_fields(self.computing)
        if idle:
            raise ConfigError(
                f"expected --model with {', '.join(sorted(idle))}, found --results, whose figures need no network"
            )
        dataset = read_dataset(self.data, self.images, strict=self.strict, hints=self.hints)
        report = evaluate_results(
            dataset,
            self.results,
            max_detections=100 if self.max_detections is None else self.max_detections,
            image_ids=list(first_images(dataset, self.limit).records.numbers()),
            group_by=self.group_by,
            matching=self.min_score if self.matching else None,
            analysis=self.report is not None,
        )
        return dataset, report


# What --help shows of these; --help-all shows every flag.
SHORT_HELP: dict[type, tuple[str, ...]] = {
    Evaluate: (
        *("data", "images", "model", "results", "max_detections", "results_out", "limit", "group_by", "matching"),
        *("min_score", "batch_size", "tta", "tiles", "strict", "report", "json", "help_all"),
    ),
    Hints: (),
    Opening: (),
    Computing: ("precision", "threads"),
}


def parse(argv: Sequence[str]) -> Evaluate:
    command: Evaluate = parse_flags(Evaluate, "maskrcnn evaluate", argv, hidden=short_help(SHORT_HELP, argv))
    return command
