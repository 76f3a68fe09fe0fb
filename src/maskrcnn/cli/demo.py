"""`maskrcnn demo`: the whole job on generated images, in minutes and without a download."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.cli.flags import Flag, parse_flags
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError, counted

if TYPE_CHECKING:
    from maskrcnn.predict import Predictor
    from maskrcnn.structures.dataset import Dataset

RUN_FILES = ("model.safetensors", "last.ckpt", "metrics.jsonl", "curves.png", "report.html")


@dataclass(frozen=True)
class Demo:
    """Generate images of shapes, train the tiny preset, evaluate and draw the results."""

    out: Path = Path("demo")
    """Folder for the data, the model and the pictures."""
    images: int = 1000
    """Number of training images."""
    val_images: int = 200
    """Number of images to evaluate on."""
    size: int = 160
    """Side of the images in pixels."""
    steps: int | None = None
    """Training steps; default: those of the preset."""
    seed: int = 0
    """Seed of the data and of training."""
    keypoints: Flag = False
    """Also learn the topmost, rightmost, bottommost and leftmost point of each shape."""
    json: Flag = False
    """Print the figures as one JSON object on stdout."""

    def run(self) -> int:
        """Runs the demo; a signal that comes before or after the training ends it as one that comes meanwhile."""
        from maskrcnn.cli.output import console

        try:
            return self._run()
        except KeyboardInterrupt:
            console(stderr=True).print(f"interrupted; the same command continues in {self.out}")
            return 130

    def _run(self) -> int:
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.data.formats import read_dataset
        from maskrcnn.data.shapes import write_shapes
        from maskrcnn.evaluation.report import table
        from maskrcnn.files.atomic import check_folder
        from maskrcnn.files.progress import track
        from maskrcnn.predict import load
        from maskrcnn.training.checkpoint import ChangedRunError
        from maskrcnn.training.evaluate import evaluate
        from maskrcnn.training.loop import train

        check_folder(self.out)
        config = preset("keypoint_rcnn_tiny" if self.keypoints else "mask_rcnn_tiny")
        steps = config.train.steps if self.steps is None else self.steps
        config = replace(config, train=replace(config.train, seed=self.seed, steps=steps))
        say, number = console(stderr=self.json).print, self.images + self.val_images
        console(stderr=True).print(f"drawing {counted(number, 'image')} of shapes in {self.out}")
        data = {
            split: write_shapes(self.out, split, count, size=self.size, seed=self.seed, keypoints=self.keypoints)
            for split, count in (("train", self.images), ("val", self.val_images))
        }
        run, sheet = self.out / "run", self.out / "contact_sheet.png"
        if sheet.exists():  # it is written last, so an earlier demo has finished: start anew
            for file in (sheet, *(run / name for name in RUN_FILES), *run.glob("step-*.ckpt")):
                file.unlink(missing_ok=True)
        try:
            summary = train(config, data["train"], out=run, resume=(run / "last.ckpt").exists())
        except ChangedRunError as error:
            todo = "give the flags with which this demo began, or choose another --out"
            raise ConfigError(f"{error.changes}; {todo}") from None
        if not summary.finished:
            raise KeyboardInterrupt
        model = load(summary.model)
        val = read_dataset(data["val"])
        report = evaluate(model, val, track=lambda items, total: track(items, "evaluate", total))
        draw_sheet(model, val, sheet)
        if self.json:
            print_json({**report.to_dict(), "seconds": summary.seconds, "out": self.out})
        say(table(report))
        pictures, val_images = self.out / "pictures", data["val"].with_suffix("")
        predict = ("maskrcnn", "predict", "--model", summary.model, val_images, "--out", pictures)
        evaluation = ("maskrcnn", "evaluate", "--model", summary.model, "--data", data["val"])
        say(
            f"{self.val_images} unseen images, after {summary.steps} steps in {summary.seconds:.0f} s\n\n"
            f"  data      {data['train']}, {data['val']}\n"
            f"  model     {summary.model}\n"
            f"  pictures  {sheet} (ground truth beside prediction), {run / 'curves.png'}\n\n"
            "Try these next, and then your own data:\n"
            f"  {shlex.join(map(str, predict))}\n"
            f"  {shlex.join(map(str, evaluation))}\n"
            "  maskrcnn data check your.json\n"
            "  maskrcnn train your.json"
        )
        return 0


def draw_sheet(model: Predictor, dataset: Dataset, path: Path, rows: int = 8) -> None:
    """Draws ground truth beside prediction for the first images of a data set, as one PNG."""
    from PIL import Image

    from maskrcnn.files.atomic import atomic_write
    from maskrcnn.visualise import contact_sheet

    shown = range(min(rows, len(dataset)))
    images = [dataset.read(index) for index in shown]
    truths = [dataset.instances(index) for index in shown]
    sheet = contact_sheet(list(zip(images, truths, model.predict(images), strict=True)))
    with atomic_write(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def parse(argv: Sequence[str]) -> Demo:
    command: Demo = parse_flags(Demo, "maskrcnn demo", argv)
    return command
