"""Flags of `export` that write int8: the images of the calibration, and the data that judge the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskrcnn.cli.flags import changed_fields
from maskrcnn.errors import ConfigError, DataError, ImageError, counted

if TYPE_CHECKING:
    from maskrcnn.evaluation.coco import Report
    from maskrcnn.export.int8 import Calibration
    from maskrcnn.predict import Predictor
    from maskrcnn.structures.dataset import Dataset


@dataclass(frozen=True)
class Calibrating:
    """Whether and how an export becomes int8."""

    precision: Literal["fp32", "int8"] = "fp32"
    """int8: the layers multiply numbers of 8 bits, which is faster on processors with instructions for it."""
    calibrate: str | None = None
    """With int8: a folder (with its subfolders) or glob of 64 to 300 images of the kind that the model will see."""
    data: Path | None = None
    """With int8: data set on which AP and AR are measured before and after."""
    limit: int | None = None
    """Judge int8 only by the first images of --data, up to this many."""
    max_drop: float = 0.005
    """Refuse int8 if it lowers an AP on --data by more than this."""

    def require_sense(self) -> None:
        """Raises ConfigError for flags that have no effect or lack another one."""
        given = changed_fields(self)
        if self.precision == "fp32" and given:
            raise ConfigError(f"{given[0]} belongs to --precision int8, which is missing")
        if self.precision == "int8" and self.calibrate is None:
            raise ConfigError("--precision int8 needs images of the kind that the model will see: --calibrate IMAGES")
        if self.data is None and {"--limit", "--max-drop"} & set(given):
            raise ConfigError("--limit and --max-drop belong to --data, which is missing")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit: expected 1 image or more, found {self.limit}")
        if not 0 <= self.max_drop <= 1:
            raise ConfigError(f"--max-drop: expected a difference of AP from 0 to 1, found {self.max_drop}")

    def start(self, model: Predictor) -> Int8Run | None:
        """Reads what the flags name, and measures the model in PyTorch; None in fp32."""
        if self.calibrate is None:
            return None
        from maskrcnn.cli.reading import open_dataset
        from maskrcnn.data.hints import NO_HINTS
        from maskrcnn.export.int8 import Calibration
        from maskrcnn.files.progress import track

        files = _readable(self.calibrate, model.config.image.channel_names)
        run = Int8Run(self, None if self.data is None else open_dataset(self.data, NO_HINTS))
        try:
            run.calibration = Calibration(files, run.objection, lambda items, total: track(items, "calibrate", total))
        except ConfigError as error:
            raise ConfigError(f"--calibrate {self.calibrate}: {error}") from None
        if run.dataset is not None:
            run.say_shared_images(run.dataset)
            run.before = run.measure(model)
            if run.before.undefined is not None:
                raise DataError(f"{self.data}: {run.before.undefined}")
        return run


def _readable(source: str, channels: Sequence[str]) -> list[Path]:
    """The image files of a calibration. Those that cannot be read are reported on stderr and left out."""
    from maskrcnn.cli.output import console
    from maskrcnn.files.images import image_files, read_image
    from maskrcnn.files.progress import track

    files = image_files([source])
    good = []
    for file in track(files, "read", len(files)):
        try:
            read_image(file, lambda remark: None, channels)
            good.append(file)
        except ImageError as error:
            console(stderr=True).print(f"skipped: {error}")
    return good


@dataclass
class Int8Run:
    """An export to int8, with the figures of the model before and after it if there is a data set."""

    flags: Calibrating
    dataset: Dataset | None
    calibration: Calibration | None = None
    before: Report | None = None
    after: Report | None = None

    def say_shared_images(self, dataset: Dataset) -> None:
        """Says so if images of the calibration also judge its result."""
        from maskrcnn.cli.output import console
        from maskrcnn.data.editing.copies import also_in

        assert self.calibration is not None
        judging = dataset.records.paths[: self.flags.limit]
        shared = also_in(map(str, self.calibration.chosen), judging)
        if shared:
            console(stderr=True).print(
                f"note: {len(shared)} of {counted(len(judging), 'image')} of --data are also in --calibrate, first: "
                f"{shared[0]}; int8 will look better than it is on new images: calibrate with others"
            )

    def measure(self, model: Predictor) -> Report:
        from maskrcnn.files.progress import track
        from maskrcnn.training.evaluate import evaluate

        assert self.dataset is not None
        return evaluate(
            model, self.dataset, limit=self.flags.limit, track=lambda items, total: track(items, "evaluate", total)
        )

    def objection(self, written: Path) -> str | None:
        """Measures the written network; says which AP it has lowered too much, if it has."""
        from maskrcnn.predict import load

        if self.before is None:
            return None
        self.after = self.measure(load(written, precision="fp32"))
        for kind, figures in self.before.figures.items():
            old, new = figures["AP"], (self.after.figures.get(kind) or {}).get("AP")
            if old is not None and (new is None or old - new > self.flags.max_drop):
                fall = f"AP of {kind} falls from {old:.4f} to {new or 0:.4f}"
                return f"{fall}, more than --max-drop {self.flags.max_drop:g}; give more images, or export in fp32"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the number of images of the calibration, and all figures before and after it."""
        assert self.calibration is not None
        sides = {"before": self.before, "after": self.after}
        figures = {name: None if report is None else report.figures for name, report in sides.items()}
        return {"calibrated": len(self.calibration.chosen), **figures}

    def text(self, out: Path) -> str:
        """A table of AP and AR before and after, or how to measure them."""
        assert self.calibration is not None
        count = len(self.calibration.chosen)
        if self.before is None or self.after is None:
            return (
                f"int8, calibrated on {count} images; its AP was not measured: "
                f"maskrcnn evaluate --model {out} --data DATA"
            )
        lines = [f"{'':10}{'':>6}{'fp32':>8}{'int8':>8}{'change':>9}"]
        for kind, old in self.before.figures.items():
            new = self.after.figures[kind]
            recall = next(name for name in reversed(old) if name == "AR" or (name[:2] == "AR" and name[2:].isdigit()))
            for name in ("AP", recall):
                a, b = old[name] or 0, new[name] or 0
                lines.append(f"{kind:10}{name:>6}{a:8.4f}{b:8.4f}{b - a:+9.4f}")
        return "\n".join([f"int8, calibrated on {count} images, judged on {self.after.images}", *lines])
