"""Draws page.png and page_phone.png: the server's page with generated images.

maskrcnn demo --out demo
python docs/pictures/page.py demo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def main(demo: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "maskrcnn",
        "serve",
        "--port",
        "0",
        "--model",
        str(demo / "run" / "model.safetensors"),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stderr.readline())["url"]
            draw(url, sorted((demo / "val").iterdir())[3:6])
        finally:
            server.kill()


def draw(url: str, images: list[Path]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, size in (("page", WIDE), ("page_phone", PHONE)):
            page = browser.new_page(viewport=size, device_scale_factor=1 if name == "page" else 2)
            page.goto(url)
            page.set_input_files("#files", [str(image) for image in images])
            page.wait_for_function(
                "() => document.querySelector('#status').textContent.startsWith('3/3')", timeout=60_000
            )
            page.wait_for_function("() => document.querySelector('#objects li')", timeout=60_000)
            page.locator("#objects button").first.click()
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
