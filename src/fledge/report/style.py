"""How figures look: colours that colour-blind readers can tell apart, and SVG that follows the page's scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fledge.core.files import to_csv

# Okabe & Ito (2008), each with a lighter twin for dark pages.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b8860b")
_DARK_SERIES = ("#5aa9e6", "#ff9248", "#3fcf9f", "#e6a3c8", "#8fd0f7", "#e0b64a")
INK, MUTED, GRID, CELL, WALL = "#1c2127", "#667080", "#dfe3e8", "#f4f6f8", "#49515c"
_DARK = ("#e8eaed", "#9aa4b2", "#343b45", "#20262e", "#8b95a3")
COLOURS = dict(zip((*SERIES, INK, MUTED, GRID, CELL, WALL), (*_DARK_SERIES, *_DARK), strict=True))
"""Colour on a light page → the same on a dark one."""
REFERENCE_DASHES = ((0, (1, 1.5)), (0, (3, 1.5, 1, 1.5)), (0, (5, 1, 1, 1, 1, 1)))
TIME = LinearSegmentedColormap.from_list("time", ["#2f7fd6", "#a05fb4", "#e8702a"])
"""First step blue, last step orange: both stand out on light and on dark, in every kind of colour vision."""
_PIXELS_PER_POINT = 1.42  # text of 10.5 points is 15 pixels on the page
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"
_SETTINGS: Any = {"svg.fonttype": "none", "font.size": 10.5, "axes.linewidth": 0.8, "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers in it."""

    name: str
    """What its files are called."""
    title: str
    caption: str
    svg: str
    """Stands alone, in light colours."""
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    @property
    def csv(self) -> str:
        """Exactly the numbers that were drawn."""
        return to_csv(self.columns, self.rows)

    @property
    def inline(self) -> str:
        """The SVG for a page: colours are CSS variables, and its ids belong to this figure alone."""
        svg = self.svg[self.svg.index("<svg") :]
        wide = round(_PIXELS_PER_POINT * float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1]))  # type: ignore[index]
        svg = (
            re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
        )
        svg = svg.replace(
            "<svg", f'<svg style="max-width: {wide}px" role="img" aria-label="{_attribute(self.title)}"', 1
        )
        svg = re.sub(r'\bid="', f'id="{self.name}-', svg)
        svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", svg)
        return re.sub("|".join(COLOURS), lambda found: f"var({variable(found[0])}, {found[0]})", svg)


def variable(colour: str) -> str:
    """The CSS variable that stands for a light-page colour."""
    return f"--c{list(COLOURS).index(colour)}"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, outside of pyplot's state."""
    with matplotlib.rc_context(_SETTINGS):
        return Figure(figsize=(width, height))


def to_svg(figure: Figure) -> str:
    """The figure as SVG text. The same figure always gives the same text."""
    out = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": "fledge"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return re.sub(r"'DejaVu Sans'(, [\w\s',-]+)?(?=[;\"])", lambda _: _FONTS, out.getvalue())


def plain_axes(axes: Axes) -> None:
    """Two spines, faint horizontal lines, muted ticks."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=10, length=3)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions near the wanted ones, in the same order, at least `gap` apart and within [low, high] if they fit."""
    wanted_array = np.asarray(wanted, float)
    order = np.argsort(wanted_array, kind="stable")
    places = wanted_array[order]
    for _ in range(200):
        overlap = gap - np.diff(places)
        push = np.maximum(overlap, 0) / 2
        places[:-1] -= push
        places[1:] += push
        places += max(0.0, low - places.min()) if places.size else 0.0
        if places.size and places.max() > high:
            places -= np.maximum(0, places - (high - gap * np.arange(len(places))[::-1]))
        if not (overlap > gap * 1e-3).any():
            break
    out = np.empty_like(places)
    out[order] = places
    return out
