"""The report of a data set, read as text and in a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from browser import require_sound_page
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
    out = tmp_path / "report.html"
    out.write_text(report(examine(read_dataset(faulty(tmp_path / "set")))))
    require_sound_page(out)
