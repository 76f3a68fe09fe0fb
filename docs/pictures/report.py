"""Draws report.png and show_sheet.png: the doctor's report on generated shapes with planted faults, and their sheet.

python docs/pictures/report.py
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright

from maskrcnn.cli import main as command
from maskrcnn.data.shapes import write_shapes

HERE = Path(__file__).parent
SIZE = {"width": 1000, "height": 1250}


def main(folder: Path) -> None:
    path = write_shapes(folder, "train", 24)
    content = json.loads(path.read_text())
    plant(content, folder / "train")
    path.write_text(json.dumps(content))
    report = folder / "report.html"
    command(["data", "check", str(path), "--report", str(report)])
    command(["data", "show", str(path), "--out", str(folder / "look"), "--sheet", "--limit", "12"])
    shutil.copy(folder / "look" / "sheet.png", HERE / "show_sheet.png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(report.as_uri())
        page.screenshot(path=HERE / "report.png")
        browser.close()


def plant(content: dict[str, Any], images: Path) -> None:
    """Four kinds of faults: a box beside its mask, an object twice, an area of the box, and an image twice."""
    entries = content["annotations"]
    x, y, width, height = entries[0]["bbox"]
    entries[0]["bbox"] = [x + width, y, width, height]
    entries.append({**entries[5], "id": 1 + max(entry["id"] for entry in entries)})
    entries[9]["area"] = 3 * entries[9]["area"]
    shutil.copy(images / content["images"][3]["file_name"].rpartition("/")[2], images / "copy.png")
    first = {**content["images"][3], "id": 1 + max(image["id"] for image in content["images"])}
    content["images"].append({**first, "file_name": content["images"][3]["file_name"].rpartition("/")[0] + "/copy.png"})


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        main(Path(temporary))
    sys.exit()
