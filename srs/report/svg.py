"""Figures on paper, in files and inside a page that may be light or dark."""

import base64
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float32
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from smoothing.storage import replacing

#: The page itself, and what stands on it, in the light and in the dark.
PAPER: Mapping[str, tuple[str, str]] = {"page": ("#fbfbfc", "#131316"), "card": ("#ffffff", "#1c1c21")}

#: Colours of lines and words by the name of the page's variable, in the light and in the dark. Those of series are near
#: Okabe and Ito's, those of levels viridis: both can be told apart with any colour vision. No two are alike.
COLOURS: Mapping[str, tuple[str, str]] = {
    "ink": ("#1b1b1f", "#ececf0"),
    "muted": ("#63636b", "#a5a5ae"),
    "grid": ("#dcdce1", "#36363d"),
    "main": ("#d55e00", "#ff8a3d"),
    "second": ("#0072b2", "#5db4ee"),
    "third": ("#009e73", "#34c79b"),
    "fourth": ("#cc79a7", "#e39cc4"),
    "fifth": ("#b57d00", "#f2bd4b"),
    "sixth": ("#3a93c8", "#9bd6f7"),
    "level-1": ("#440154", "#287d8e"),
    "level-2": ("#482071", "#21918c"),
    "level-3": ("#433d84", "#20a486"),
    "level-4": ("#39568c", "#37b878"),
    "level-5": ("#2e6d8e", "#5ec962"),
    "level-6": ("#26828e", "#90d743"),
    "level-7": ("#1f978b", "#c8e020"),
    "level-8": ("#1fa386", "#fde725"),
}

#: Each colour as it is drawn.
INK: Mapping[str, str] = {name: light for name, (light, _) in COLOURS.items()}

#: Lines of the same colour never meet; those of different ones differ in their dashes as well.
SERIES = tuple(
    zip(
        [INK[name] for name in ("main", "second", "third", "fourth", "fifth", "sixth", "ink")],
        ["-", (0, (6, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (2, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3))],
        strict=True,
    )
)

#: Dashes of neighbouring noise levels.
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1, 1.5)))

_STYLE: Any = {  # matplotlib lists the names that may stand here
    "text.color": INK["ink"],
    "axes.labelcolor": INK["ink"],
    "axes.edgecolor": INK["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK["grid"],
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: many venues reject the Type 3 fonts that matplotlib embeds otherwise
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "srs",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure, and what it says to those who point at it or cannot see it.

    Attributes
    ----------
    figure : Figure
    title : str
        What it shows, in a sentence without its full stop.
    said : dict of str to str
        What parts of it stand for, by the identifiers that `say` gave them.
    """

    figure: Figure
    title: str
    said: dict[str, str] = field(default_factory=dict)

    def say(self, part: Artist, text: str) -> None:
        """Say what a part stands for; a page shows that where one points at it."""
        name = f"part-{len(self.said)}"
        part.set_gid(name)
        self.said[name] = text


@contextmanager
def style(size: float = 9) -> Iterator[None]:
    """Draw in our style, with letters of this size in points; numbers at axes and legends are one point smaller."""
    small = dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), size - 1)
    sizes: Any = {"font.size": size, "axes.labelsize": size, **small}
    with rc_context(_STYLE), rc_context(sizes):
        yield


def level_styles(levels: int) -> list[dict[str, Any]]:
    """Return a colour and dashes for each of so many noise levels, in their order: from dark to light on paper."""
    places = [4] if levels == 1 else np.linspace(1, 8, levels)
    return [
        {"color": INK[f"level-{round(float(place))}"], "ls": _DASHES[k % len(_DASHES)]}
        for k, place in enumerate(places)
    ]


def save(figure: Figure, *paths: str | PathLike[str]) -> None:
    """Write a figure, each file whole or not at all; the suffix says in which format."""
    for path in map(Path, paths):
        with style(), _boxes_for_unknown_letters(), replacing(path) as stream:
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            figure.savefig(stream, format=path.suffix[1:], dpi=300, facecolor="white", metadata=metadata)


def undrawn(text: str) -> str:
    """Return the characters, each once, for which files of figures have a box: the font of matplotlib lacks them."""
    font = get_font(findfont(FontProperties()))
    return "".join(letter for letter in dict.fromkeys(text) if not font.get_char_index(ord(letter)))


@contextmanager
def _boxes_for_unknown_letters() -> Iterator[None]:
    """Let matplotlib draw them without a warning for each; `undrawn` tells them beforehand."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def inline_svg(drawing: Drawing, name: str) -> str:
    """Return a figure as an SVG element for a page, whose colours are the page's variables.

    Parameters
    ----------
    drawing : Drawing
    name : str
        Unlike every other figure's in the page: it keeps their identifiers apart.
    """
    stream = io.StringIO()
    with style(), _boxes_for_unknown_letters(), rc_context({"svg.hashsalt": name}):
        drawing.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    root = ElementTree.fromstring(text[text.index("<svg") :])
    _without_namespaces(root)
    for child in root.findall("metadata"):
        root.remove(child)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    identifiers = {element.get("id") for element in root.iter()}
    for element in root.iter():
        if (text_of_part := drawing.said.get(element.get("id", ""))) is not None:
            element.set("pointer-events", "all")
            _entitle(element, text_of_part)
        for attribute, value in element.attrib.items():
            element.set(attribute, _of_the_page(attribute, value, identifiers, name))
    _entitle(root, drawing.title).set("id", f"{name}-title")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    return ElementTree.tostring(root, encoding="unicode")


def _without_namespaces(root: ElementTree.Element) -> None:
    """Name elements and attributes as HTML does, which knows no namespaces."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for attribute in [name for name in element.attrib if "}" in name]:
            element.set(attribute.rpartition("}")[2], element.attrib.pop(attribute))


def _entitle(element: ElementTree.Element, text: str) -> ElementTree.Element:
    title = ElementTree.Element("title")
    title.text = text
    element.insert(0, title)
    return title


def _of_the_page(attribute: str, value: str, identifiers: set[str | None], name: str) -> str:
    """Return what an attribute says with the page's identifiers, fonts and colours."""
    if attribute == "id":
        return f"{name}-{value}"
    value = re.sub(r"(^|url\()#([^)]+)", lambda at: f"{at[1]}#{name}-{at[2]}" if at[2] in identifiers else at[0], value)
    if attribute == "style":
        value = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", value)
        for variable, colour in INK.items():
            value = value.replace(colour, f"var(--{variable})")
    return value


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
