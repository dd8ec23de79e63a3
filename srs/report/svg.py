"""Figures on paper, in files and inside a page that may be light or dark."""

import base64
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from matplotlib import rc_context
from matplotlib.figure import Figure

from smoothing.storage import replacing

#: Colours by the name of the page's variable. Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS: Mapping[str, str] = {
    "ink": "#1b1b1f",
    "muted": "#63636b",
    "grid": "#dcdce1",
    "main": "#d55e00",
    "second": "#0072b2",
    "third": "#009e73",
    "fourth": "#cc79a7",
    "fifth": "#e69f00",
    "sixth": "#56b4e9",
}

#: Lines of the same colour never meet; those of different ones differ in their dashes as well.
SERIES = tuple(
    zip(
        [COLOURS[name] for name in ("main", "second", "third", "fourth", "fifth", "sixth", "ink")],
        ["-", (0, (6, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3))],
        strict=True,
    )
)

_STYLE: Any = {  # matplotlib lists the names that may stand here
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "font.size": 9,
    "pdf.fonttype": 42,  # TrueType: many venues reject the Type 3 fonts that matplotlib embeds otherwise
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "srs",
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style."""
    with rc_context(_STYLE):
        yield


def save(figure: Figure, *paths: str | PathLike[str]) -> None:
    """Write a figure, each file whole or not at all; the suffix says in which format."""
    for path in map(Path, paths):
        with style(), replacing(path) as stream:
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(stream, format=path.suffix[1:], dpi=160, facecolor="white", metadata=metadata)


def inline_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page, whose colours are the page's variables.

    Parameters
    ----------
    figure : Figure
    name : str
        Unlike every other figure's in the page: it keeps their identifiers apart.
    """
    stream = io.StringIO()
    with style(), rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    identifiers = set(re.findall(r'\bid="([^"]+)"', svg))
    for identifier in sorted(identifiers, key=len, reverse=True):
        svg = re.sub(rf'(id="|#){re.escape(identifier)}(?=["\)])', rf"\1{name}-{identifier}", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def image_uri(image: Float32[np.ndarray, "c h w"]) -> str:
    """Return an image, pixels in [0, 1], as a PNG in a data URI; other than one or three channels become grey."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels(image)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def pixels(image: Float32[np.ndarray, "c h w"]) -> np.ndarray:
    """Return an image as bytes: (H, W, 3) where it has three channels, else (H, W)."""
    flat = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    return np.asarray(np.rint(255 * flat.clip(0, 1)), dtype=np.uint8)
