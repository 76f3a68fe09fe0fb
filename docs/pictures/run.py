"""Draws run.png, run_phone.png and compare.png: the report of a training run on generated shapes, and two runs beside
each other.

python docs/pictures/run.py
"""

from __future__ import annotations

import shutil
import sys
from os import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from maskrcnn.cli import main as command
from maskrcnn.data.shapes import write_shapes

HERE = Path(__file__).parent.absolute()
WIDE, PHONE = {"width": 1280, "height": 1400}, {"width": 390, "height": 844}
STEPS = "400"


def main(folder: Path) -> None:
    chdir(folder)  # the pages show paths as they were given
    here = Path()
    train, val = write_shapes(here, "train", 400), write_shapes(here, "val", 60, seed=1)
    runs = [here / name for name in ("shapes", "shapes-faster")]
    for run, rate in zip(runs, ("1e-3", "2e-3"), strict=True):
        words = ["train", str(train), "--val", str(val), "--out", str(run), "--preset", "mask_rcnn_tiny", "--train.ema"]
        command([*words, "--train.steps", STEPS, "--train.evaluate-every", "100", "--train.learning-rate", rate])
    command(["compare", *map(str, runs), "--report", "compare.html"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for file, name, size in (
            (runs[0] / "report.html", "run", WIDE),
            (runs[0] / "report.html", "run_phone", PHONE),
            (here / "compare.html", "compare", {**WIDE, "height": 900}),
        ):
            page = browser.new_page(viewport=size)
            page.goto(file.absolute().as_uri())
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        main(Path(temporary))
    sys.exit()
