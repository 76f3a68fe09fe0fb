from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np

from maskrcnn.visualise.page import (
    Section,
    gallery,
    heading,
    listing,
    new_figure,
    page,
    paragraph,
    picture,
    plot,
    table,
)


def test_a_page_needs_nothing_beside_it_and_escapes_every_text() -> None:
    figure, axes = new_figure()
    axes.bar([0, 1], [3, 4], label="<b>")
    axes.set(xlabel="a < b & c")
    odd = "<script>alert(1)</script> & \x1b[31m"
    sections = [
        Section(
            odd, [heading(odd), paragraph(odd, "bad"), listing([odd] * 7, shown=2), table([odd, "n"], [[odd, 0.12345]])]
        ),
        Section("Pictures", [gallery([picture(np.zeros((20, 900, 3), np.uint8), odd), plot(figure, odd)])]),
    ]
    content = page(odd, [paragraph("first")], sections)
    assert "<script" not in content
    assert "\x1b" not in content
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", content)
    assert "5 more" in content
    assert '<td class="number">0.1235</td>' in content
    assert content.count("<section") == content.count('href="#s') == 2
    (width,) = re.findall(r'<img [^>]*width="(\d+)"', content)
    assert width == "640"


def test_a_plot_takes_the_colour_of_the_text() -> None:
    figure, axes = new_figure()
    axes.plot([0, 1], [1, 0], color="#ff4d6d")
    drawing = plot(figure, "a line")
    ET.fromstring(drawing)
    assert "#000000" not in drawing
    assert "currentColor" in drawing
    assert "#ff4d6d" in drawing


def test_a_column_of_texts_and_numbers_stands_left() -> None:
    assert "number" not in table(["mixed"], [["a"], [3]])
    assert table(["none"], []).count("<tr>") == 1
