"""Reports as one HTML file that needs nothing beside it: texts, tables, pictures and plots.

The functions return pieces of HTML, and `page` puts them together. Every text is escaped. The page has no script, fits
narrow windows, and follows the light or dark setting of the browser.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maskrcnn.errors import printable
from maskrcnn.visualise.palette import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_JPEG_QUALITY = 85
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light dark; --ink: #18181b; --paper: #fff; --soft: #6b7280; --line: #e4e4e7; --card: #f7f7f8;
  --bad: #b91c1c; --mid: #92500a; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --paper: #161619; --soft: #a1a1aa; --line: #34343a;
  --card: #202024; --bad: #f98b8b; --mid: #f3bd62; --good: #6ddc95; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 24px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 10px; }
h3 { font-size: 16px; margin: 28px 0 4px; } p { margin: 4px 0 10px; max-width: 80ch; }
a { color: inherit; } nav { margin: 14px 0; } nav a { display: inline-block; margin: 2px 14px 2px 0; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .mid { color: var(--mid); } .good { color: var(--good); }
.wide { overflow-x: auto; margin: 8px 0 14px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } th, td { overflow-wrap: normal; }
td.number, th.number { text-align: right; }
.gallery { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr));
  align-items: start; margin: 10px 0; }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
figure img { display: block; width: 100%; height: auto; max-height: 420px; object-fit: contain; }
figure svg { display: block; width: 100%; height: auto; } svg text { fill: currentColor; }
figcaption { font-size: 13px; padding: 6px 2px 0; color: var(--soft); }
ul { padding-left: 20px; margin: 6px 0; } summary { cursor: pointer; color: var(--soft); }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page with a title of its own, and the pieces of HTML below it."""

    title: str
    parts: Sequence[str]


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        lead: pieces of HTML above the first section.
    """
    links = "".join(f'<a href="#s{i}">{_text(section.title)}</a>' for i, section in enumerate(sections))
    body = "".join(
        f'<section id="s{i}"><h2>{_text(section.title)}</h2>{"".join(section.parts)}</section>'
        for i, section in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{_text(title)}</h1>{''.join(lead)}</header><nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def heading(text: str) -> str:
    """A heading below that of a section."""
    return f"<h3>{_text(text)}</h3>"


def paragraph(text: str, tone: str = "") -> str:
    """A paragraph.

    Args:
        tone: `bad`, `mid`, `good` or `soft` for a colour.
    """
    return f'<p class="{tone}">{_text(text)}</p>' if tone else f"<p>{_text(text)}</p>"


def listing(texts: Sequence[str], shown: int = 5) -> str:
    """A list, of which all beyond the first ones are folded away."""
    items = [f"<li>{_text(text)}</li>" for text in texts]
    rest = f"<details><summary>{len(items) - shown} more</summary><ul>{''.join(items[shown:])}</ul></details>"
    return f"<ul>{''.join(items[:shown])}</ul>{rest if len(items) > shown else ''}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table. Numbers stand right, and floats have four digits."""
    lines = [list(row) for row in rows]
    right = [all(isinstance(line[i], int | float) for line in lines) and bool(lines) for i in range(len(head))]

    def cells(tag: str, values: Sequence[object]) -> str:
        kinds = [' class="number"' if number else "" for number in right]
        return "".join(f"<{tag}{kind}>{_text(_cell(v))}</{tag}>" for v, kind in zip(values, kinds, strict=True))

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(image: np.ndarray, caption: str, longest: int = 640) -> str:
    """A picture with a caption.

    Args:
        image: (H, W, 3) uint8 RGB.
        longest: pixels of its longer side, at most.
    """
    shown = Image.fromarray(image)
    shown.thumbnail((longest, longest))
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    words = _text(caption)
    return (
        f'<figure><img alt="{words}" width="{shown.width}" height="{shown.height}" '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{words}</figcaption></figure>'
    )


def gallery(figures: Sequence[str], *, plots: bool = False) -> str:
    """Pictures or plots side by side, as many as the window is wide."""
    return f'<div class="gallery{" plots" if plots else ""}">{"".join(figures)}</div>' if figures else ""


def plot(figure: Figure, caption: str) -> str:
    """A figure of matplotlib as vector graphics, in the colours of the page: black becomes the colour of the text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = drawing.replace("#000000", "currentColor").replace(
        "<svg ", f'<svg role="img" aria-label="{_text(caption)}" '
    )
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def new_figure(width: float = 5.6, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure of matplotlib in the style of the pages, width and height in inches."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.35,
        "font.size": 10,
    }
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)  # draws without a window, whatever the user's settings
        return figure, figure.add_subplot()


def colour(number: int) -> str:
    """A colour of the palette for plots."""
    red, green, blue = PALETTE[number % len(PALETTE)]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _text(text: str) -> str:
    return escape(printable(text))
