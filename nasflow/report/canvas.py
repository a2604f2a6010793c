"""Rendering of plots, as PNG for papers and slides and as SVG for the page."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nasflow.report.text import esc

# Okabe and Ito's palette, made for all kinds of colour vision. Within the page each colour becomes the style sheet's
# variable of the same name, which has another value on a dark background; so no two of these are quite equal.
INK, MUTED, GRID, FRONT, MISSED = "#1b2029", "#8b929c", "#dde1e6", "#0072b2", "#d55e00"
SERIES = ("#0072b3", "#e69f01", "#009e74", "#cc79a8", "#56b4ea", "#d55e01", "#7a6a01", "#5b3a8f")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", FRONT: "front", MISSED: "missed"} | {
    colour: f"series{i}" for i, colour in enumerate(SERIES)
}
_SIZE = (5.4, 3.9)  # inches; on a phone this is about the size of the screen, so that the text keeps its own
_DPI = 200
_FONT = "DejaVu Sans"
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a metric's name is no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "nasflow",
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Plot:
    """A plot in both forms.

    Attributes:
        stem: Name of its PNG file, without the ending.
        svg: For the page; its text is text, its colours are the page's.
        png: The image file.
        caption: What it shows, one or two sentences of plain text.
    """

    stem: str
    svg: str
    png: bytes
    caption: str

    def save(self, folder: Path) -> None:
        """Write the PNG file into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.stem}.png").write_bytes(self.png)

    def html(self) -> str:
        """Return it as a figure with its caption."""
        return f"<figure>{self.svg}<figcaption>{esc(self.caption)}</figcaption></figure>"


def render(stem: str, caption: str, paint: Callable[[Axes], None]) -> Plot:
    """Draw a plot.

    Args:
        stem: Name of the PNG file, unique within the page.
        caption: What it shows.
        paint: Draws on empty axes.
    """
    png, svg = BytesIO(), StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        figure.patch.set_visible(False)
        figure.savefig(svg, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    return Plot(stem, _embed(svg.getvalue(), stem, caption), png.getvalue(), caption)


def _embed(svg: str, stem: str, caption: str) -> str:
    """Make a stand-alone SVG a part of the page: ids of its own, the page's colours and font, a description."""
    opening = re.search(r"<svg\b[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening and box
    body = svg[opening.end() :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'( id="|href="#|url\(#)(?!slot-)', rf"\g<1>{stem}-", body)
    body = body.replace("<a xlink", '<a tabindex="-1" xlink').replace(f"'{_FONT}'", "system-ui")
    for colour, variable in _VARIABLES.items():
        body = body.replace(f": {colour}", f": var(--{variable})")
    return f'<svg class="plot" role="img" aria-label="{esc(caption)}" {box[0]}>{body}'
