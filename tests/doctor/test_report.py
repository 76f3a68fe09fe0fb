"""The report of a data set, read as text and in a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.doctor import examine, report, statistics
from planted import faulty, sound, written


def test_a_report_shows_each_kind_with_a_picture(tmp_path: Path) -> None:
    content = report(examine(read_dataset(faulty(tmp_path))))
    for title in (
        "Box that is not the box of its mask: 1",
        "Object that is annotated twice: 1",
        "Class without objects: 1",
    ):
        assert title in content
    assert content.count("data:image/jpeg;base64,") == 2
    assert content.count("<svg ") == 4
    assert "Something in it would hurt training." in content
    assert "&lt;twig&gt;" in content
    assert "<twig>" not in content


def test_figures_of_a_data_set_without_objects_are_undefined(tmp_path: Path) -> None:
    content, pictures = sound()
    content["annotations"] = []
    diagnosis = examine(read_dataset(written(tmp_path, content, pictures)))
    assert diagnosis.useless
    figures = statistics(diagnosis)
    assert figures["images_without_objects"] == 6
    assert np.isnan(figures["side"]["mean"])
    assert diagnosis.useless.partition(": ")[2] in report(diagnosis)


@pytest.mark.slow
def test_a_browser_shows_the_report_without_complaint(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    out = tmp_path / "report.html"
    out.write_text(report(examine(read_dataset(faulty(tmp_path / "set")))))
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, scheme in ((1280, "light"), (390, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(out.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            page.close()
        browser.close()
    assert complaints == []
