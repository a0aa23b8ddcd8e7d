"""How the report's pictures look, and how they become SVG for the page and PNG for Markdown."""

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

# Colours on white, with the page's names for them: there, a dark theme has others.
COLOURS = {
    "ink": "#24292f",
    "faint": "#8c959f",
    "line": "#d8dee4",
    "red": "#cf222e",
    "blue": "#0969da",
    "green": "#2da44e",
    "orange": "#bc4c00",
    "purple": "#8250df",
    "teal": "#1b7c83",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "igc",  # the same picture gives the same file
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
}
SIZE = (4.3, 3.1)  # inches; a point becomes about a pixel of the page


@dataclass
class Picture:
    """name: of its file, without suffix. tips: texts that the page shows over the elements with these gids."""

    name: str
    title: str
    note: str = ""
    svg: str = ""
    png: bytes = b""
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, artist, text: str) -> None:
        gid = f"tip{len(self.tips)}"
        artist.set_gid(gid)
        self.tips[gid] = text


def draw(picture: Picture, paint: Callable, png: bool = True, **layout) -> Picture:
    """Has `paint(picture, axes)` draw it, and fills in svg and, if asked for, png. layout: as for pyplot.subplots."""
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE, layout="constrained", **layout)
        paint(picture, axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once for both files
        svg, image = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        if png:
            figure.savefig(image, format="png", dpi=130, metadata={"Software": None})
        plt.close(figure)
    picture.svg, picture.png = _for_page(svg.getvalue(), picture), image.getvalue()
    return picture


def _for_page(svg: str, picture: Picture) -> str:
    """Of a whole SVG file, what stands in a page: as wide as its place, in the page's colours and font."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)[0]
    label = html.escape(picture.title)
    svg = re.sub(r"<svg [^>]*>", f'<svg {view} role="img" aria-label="{label}">', svg, count=1)
    for gid, text in picture.tips.items():
        svg = svg.replace(f'<g id="{gid}">', f"<g><title>{html.escape(text)}</title>")
    used = set(re.findall(r'#([\w-]+)[")]', svg))
    svg = re.sub(r' id="([\w-]+)"', lambda match: match[0] if match[1] in used else "", svg)
    for name, value in COLOURS.items():
        svg = svg.replace(value, f"var(--{name})")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    return re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", svg))
